"""Stopping rules: when to stop an untrained prior without knowing the truth. Observers of a stream of steps.

A rule is settings; ``watch`` gives a watcher for one run, which sees every step and names its candidate: the iterate that the
rule stands for. Any number of rules can watch one run. Nothing here sees the ground truth, and no step makes the device wait:
numbers are read every ``READ_EVERY`` iterations.
"""

from netprior_core.settings import discover
from netprior_core.stopping.base import READ_EVERY, AnyRule, Look, StoppingRule, Watcher

discover(__name__)

__all__ = ["READ_EVERY", "AnyRule", "Look", "StoppingRule", "Watcher"]

"""Tuning on the image: a search for the settings with which one method does best on the target, with the truth in sight.

A diagnostic: what it finds is an upper bound of what these settings can do, and no fair result. Every trial is a race of its own,
and only that race's scorer looks at the truth; the method is given the same problem as ever.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from netprior_core import interrupt
from netprior_core.errors import InvalidSettings, Unsolvable
from netprior_core.experiment import Experiment, Images, build, race_of, setting_words, target_name
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.problem import Problem
from netprior_core.race import Race
from netprior_core.settings import FieldSpec

#: Powers that the declared factors are taken to, round by round: twice as they are, so that a setting that is far off can come back
#: and all see what the others have become, then their cube roots: 1/9, 1/3, 3, 9 leave √3 to be found.
ROUNDS = (1.0, 1.0, 1 / 3)


@dataclass(frozen=True)
class Trial:
    """One place of the search: ``setting`` is at ``value`` here ("": the settings as they were given).

    number of at most ``total``; race: one lane, on the problem of the experiment; before: the best PSNR (dB) of the earlier ones.
    """

    number: int
    total: int
    setting: str
    value: Any
    race: Race
    before: float | None

    @property
    def words(self) -> str:
        """What is tried, for a person: "weight λ 0.012"."""
        label = next((field.label for field in self.race.lanes[0].method.fields() if field.name == self.setting), "")
        return setting_words(label, self.value) if label else "your settings"

    @property
    def psnr(self) -> float | None:
        """PSNR in dB of what the method returned; None while it runs, and where it failed."""
        lane = self.race.lanes[0]
        return lane.result.psnr if lane.state == "finished" and lane.result is not None else None

    @property
    def best(self) -> float | None:
        """The best PSNR in dB so far, this one's included."""
        return max((value for value in (self.before, self.psnr) if value is not None), default=None)


def refusal(experiment: Experiment, lane: int) -> str | None:
    """Why the method of a lane cannot be tuned on the image, in a sentence for a person, or None when it can."""
    if not 0 <= lane < len(experiment.methods):
        return "There is no method in this lane."
    if experiment.target_is != "truth":
        return "Tuning looks at the truth, and your target is a measurement: there is none. Choose a target that is the truth."
    method = experiment.methods[lane]
    if not isinstance(method, Tunable) or not method.searched():
        return f"{method.title} is not tuned on the image: only classical and plug-and-play methods are."
    return None


class Search:
    """A coordinate search from the settings of one lane: one setting after another to its best, again, and on a finer grid.

    Operator, noise, seeds and stopping rules are those of ``experiment``, so that the race of it gives the PSNR that was found.
    ``method`` is the best so far, ``psnr`` its PSNR in dB and ``first`` that of the settings as given (None: it failed). What was
    given stays unless something is better; what is better carries the mark ``tuned_on``.
    Raises InvalidSettings where :func:`refusal` has something to say.
    """

    def __init__(self, experiment: Experiment, lane: int, images: Images, device: torch.device | str = "cpu") -> None:
        if (reason := refusal(experiment, lane)) is not None:
            raise InvalidSettings(reason)
        method = experiment.methods[lane]
        assert isinstance(method, Tunable)
        self.experiment, self.given, self.method = experiment, method, method
        self.first: float | None = None
        self.psnr: float | None = None
        self._images, self._device = images, device
        self._built: tuple[Problem, torch.Tensor | None] | None = None
        self._now = method  # the best so far, with numbers to take factors of

    def trials(self) -> Iterator[Trial]:
        """Trials one by one. Who gets one runs its race to the end, on whatever thread, then asks for the next.

        It ends early, with the best so far, once a race was stopped. Raises Unsolvable, in words, when the problem cannot be built,
        the method refuses it, or nothing that was tried gave a result.
        """
        searched = self.given.searched()
        total, number = 1 + len(ROUNDS) * sum(map(len, searched.values())), 1
        trial = self._trial(1, total, "", None, self.given)
        yield trial
        if trial.race.state == "failed" or trial.race.lanes[0].state == "refused":
            raise Unsolvable(trial.race.message or trial.race.lanes[0].message)
        self.first = self.psnr = trial.psnr
        tried, stopped, why = {_key(self._now)}, not _ended(trial.race), trial.race.lanes[0].message
        for power in ROUNDS:
            for name, grid in searched.items():
                for value, method in self._around(name, grid, power):
                    number += 1
                    if stopped or _key(method) in tried:
                        continue
                    tried.add(_key(method))
                    trial = self._trial(number, total, name, value, method)
                    yield trial
                    stopped = not _ended(trial.race)
                    if not stopped and trial.psnr is not None and (self.psnr is None or trial.psnr > self.psnr):
                        self.psnr, self._now = trial.psnr, method
                        self.method = method.model_copy(update={"tuned_on": target_name(self.experiment.target)})
        if self.psnr is None and not stopped:
            raise Unsolvable(why)

    def _trial(self, number: int, total: int, setting: str, value: Any, method: Tunable) -> Trial:
        alone = self.experiment.model_copy(update={"methods": (method,)})
        race = race_of(alone, self._images, keep_frames=False, built=self._problem)
        return Trial(number, total, setting, value, race, self.psnr)

    def _problem(self) -> tuple[Problem, torch.Tensor | None]:
        """The problem and the truth, built by the first race, on the thread that turns it; A may take seconds to draw."""
        if self._built is None:
            built = build(self.experiment, self._images, self._device)
            if self.given.accepts(built[0]) is None:
                self._now = _rounded(self.given, self.given.written_out(built[0]))
            self._built = built
        return self._built

    def _around(self, name: str, grid: Grid, power: float) -> list[tuple[Any, Tunable]]:
        """What is tried of one setting, as (value, method with it), around its best value so far."""
        field = next(field for field in self.given.fields() if field.name == name)
        now = getattr(self._now, name)
        values = [one if isinstance(one, str) else _within(field, now * one**power) for one in grid]
        data = self._now.model_dump()
        return [(value, type(self.given).model_validate({**data, name: value})) for value in values]


def tune(experiment: Experiment, lane: int, images: Images, device: torch.device | str = "cpu") -> Generator[Trial, None, Tunable]:
    """Search the settings of a lane's method on this thread; yields every trial once it has run, and returns the best method.

    What is returned is never worse than what was given, in PSNR on this very problem; it is the given method itself where nothing
    was better. It ends with the best so far as soon as the end is asked for (:func:`interrupt.listening`).
    Raises InvalidSettings and Unsolvable as :class:`Search` does.
    """
    search = Search(experiment, lane, images, device)
    for trial in search.trials():
        _run(trial.race)
        yield trial
    return search.method


def changes(before: Tunable, after: Tunable) -> str:
    """The settings that a search has changed, in words: "weight λ 0.012, iterations 48"."""
    changed = [field for field in after.fields() if getattr(after, field.name) != getattr(before, field.name)]
    return ", ".join(setting_words(field.label, getattr(after, field.name)) for field in changed)


def _run(race: Race) -> None:
    """Turn a race until it is done, which closes it, or until the end is asked for."""
    try:
        while not race.done:
            if interrupt.asked():
                race.stop()
            race.turn()
    except BaseException:
        race.close()
        raise


def _ended(race: Race) -> bool:
    """Whether a race went its whole way, to a result or a failure of its own."""
    return race.done and race.state != "stopped"


def _key(method: Tunable) -> tuple[Any, ...]:
    """The same for settings that are as good as the same: 0.999 comes of 1 by a third, rounded, and back."""
    return tuple(f"{value:.2g}" if isinstance(value, float) else value for value in method.model_dump().values())


def _rounded(given: Tunable, written: Tunable) -> Tunable:
    """``written`` with three digits of what is not as ``given``: a person is to read it."""
    numbers = {name: getattr(written, name) for name in given.searched() if getattr(written, name) != getattr(given, name)}
    return written.model_copy(update={name: float(f"{value:.3g}") for name, value in numbers.items()})


def _within(field: FieldSpec, value: float) -> float:
    """A value that the setting may have: three digits, within its bounds, whole where it has to be."""
    low, high = field.minimum, field.maximum
    value = max(value, low) if low is not None else value
    value = min(value, high) if high is not None else value
    return round(value) if field.type == "int" else float(f"{value:.3g}")

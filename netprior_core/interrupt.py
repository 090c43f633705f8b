"""A way out of long computations within one step, so that Stop need not wait for them.

Whoever advances a method listens; loops that may take seconds without giving a step check. Without a listener nothing happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
_asked: ContextVar[Callable[[], bool] | None] = ContextVar("asked", default=None)
#: Seconds between two looks while something that cannot look itself is computed.
LOOK_EVERY = 0.05


class Interrupted(Exception):
    """The listener asked for the end in the middle of a step. Not for a person's eyes."""


@contextmanager
def listening(asked: Callable[[], bool]) -> Iterator[None]:
    """While inside, :func:`check` raises as soon as ``asked()`` is true; who listens outside is heard inside, too."""
    outer = _asked.get()
    token = _asked.set(asked if outer is None else lambda: asked() or outer())
    try:
        yield
    finally:
        _asked.reset(token)


def asked() -> bool:
    """Whether a listener asks for the end."""
    listener = _asked.get()
    return listener is not None and listener()


def check() -> None:
    """Raises Interrupted when the end was asked for."""
    if asked():
        raise Interrupted


def interruptible(compute: Callable[[], T]) -> T:
    """``compute()``, for a package that cannot be told to stop but lets other threads run: on a thread that is left to itself.

    When the end is asked for that thread goes on, unheeded, until it is done. Without a listener: on the caller's own thread.
    """
    if _asked.get() is None:
        return compute()
    found: list[T] = []
    broken: list[BaseException] = []

    def work() -> None:
        try:
            found.append(compute())
        except BaseException as error:
            broken.append(error)

    thread = threading.Thread(target=work, name="netprior-package", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_EVERY)
        check()
    if broken:
        raise broken[0]
    return found[0]

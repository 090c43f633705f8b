"""What the C library does with freed memory: keep it while a solver runs, give it back after the race."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names of mallopt's options in malloc.h
_LARGE = 2**31 - 1


def keep_buffers() -> None:
    """Tell glibc to keep freed buffers for the next iteration; a no-op elsewhere, or when the environment sets malloc's options.

    A feature map is megabytes large. By default glibc returns it to the system when it is freed, and the next iteration pays a
    page fault for each 4 KiB again: 5,000 faults an iteration of DIP at 128×128, 11% of its time on two idle cores, and 45%
    where two processes share them. One arena, since only the main one can keep blocks of any size.
    """
    if not sys.platform.startswith("linux") or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option, value in ((_TRIM_THRESHOLD, _LARGE), (_MMAP_THRESHOLD, 2**30), (_ARENA_MAX, 1)):
            mallopt(option, value)


def give_memory_back() -> None:
    """Return what glibc keeps of a finished race to the system; a no-op elsewhere."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)

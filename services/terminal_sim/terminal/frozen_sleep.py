"""Sleeping while the interpreter is held, as the real module does during its calls."""

import ctypes
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import call
from typing import cast

# clock_nanosleep(2): sleep until an instant of the clock that time.monotonic() reads.
_ABSOLUTE = 1
# A signal ends a sleep early; sleeping until an instant again costs nothing once it has passed.
_ATTEMPTS = 8


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def hold_interpreter(seconds: float, then: Callable[[], object] = tuple) -> None:
    """Sleep, and do ``then``, without letting any other thread of this process run meanwhile.

    ``ctypes.PyDLL`` calls C without releasing the GIL, and ``map`` goes from one step to the next
    without executing bytecode, so that no waiting thread gets a turn between them.

    Args:
        seconds: How long; the processor is idle.
        then: Something implemented in C, such as a ``partial`` of ``setattr``.
    """
    nanoseconds = time.monotonic_ns() + round(seconds * 1e9)
    until = ctypes.byref(_TimeSpec(*divmod(nanoseconds, 1_000_000_000)))
    sleep = ctypes.PyDLL(None).clock_nanosleep
    step = partial(sleep, time.CLOCK_MONOTONIC, _ABSOLUTE, until, None)
    steps: tuple[Callable[[], object], ...] = (*([step] * _ATTEMPTS), then)
    do = cast("Callable[[Callable[[], object]], object]", call)
    deque(map(do, steps), maxlen=0)

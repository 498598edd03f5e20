"""Waiting for a condition, bounded."""

import time
from collections.abc import Callable
from typing import TypeVar

# A bound for what comes within moments unless something is wrong.
PATIENCE_S = 60.0
STEP_S = 0.02

T = TypeVar("T")


def wait_for(condition: Callable[[], T], otherwise: str, patience_s: float = PATIENCE_S) -> T:
    """What the condition gives, once that is true.

    Raises:
        AssertionError: It does not become true; says `otherwise`.
    """
    deadline = time.monotonic() + patience_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{otherwise} after {patience_s:.0f} s")
        time.sleep(STEP_S)
    return result

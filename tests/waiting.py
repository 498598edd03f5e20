"""Waiting for a condition, bounded."""

import time
from collections.abc import Callable
from typing import TypeVar

# A bound for what comes within moments unless something is wrong.
PATIENCE_S = 60.0
STEP_S = 0.02

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T | None],
    otherwise: str | Callable[[], str],
    patience_s: float = PATIENCE_S,
) -> T:
    """What the condition gives, once that is true.

    Args:
        condition: Asked again and again.
        otherwise: What is wrong if it stays false; a function is called only then, so that it
            tells how things stand at the end and not at the beginning.
        patience_s: Bound in seconds.

    Raises:
        AssertionError: It does not become true; says `otherwise`.
    """
    deadline = time.monotonic() + patience_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            said = otherwise if isinstance(otherwise, str) else otherwise()
            raise AssertionError(f"{said} after {patience_s:.0f} s")
        time.sleep(STEP_S)
    return result

"""Ties between a process and the one that started it, where the system offers them (Linux)."""

import ctypes
import signal

# prctl(2): "send me this signal when my parent ends" and "this is my name".
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def end_with_parent() -> None:
    """Have the system kill this process when its parent ends, even if it is frozen then.

    The tie is to the thread of the parent that started this process.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def take_name(name: str) -> None:
    """Show a name, of up to 15 characters, in lists of processes."""
    _prctl(_PR_SET_NAME, name.encode())


def _prctl(option: int, value: int | bytes) -> None:
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl:
        prctl(option, value)

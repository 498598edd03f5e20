"""Waiting for a socket while the interpreter is held, as the real module waits for its terminal."""

import ctypes
import select
import time

READABLE, WRITABLE = select.POLLIN, select.POLLOUT


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


# PyDLL calls C without releasing the GIL.
_poll = ctypes.PyDLL(None).poll
_poll.argtypes = (ctypes.POINTER(_PollFd), ctypes.c_ulong, ctypes.c_int)
_poll.restype = ctypes.c_int


class HeldWait:
    """Waits for one descriptor.

    Args:
        fd: The descriptor; it stays the caller's.
        events: ``READABLE`` or ``WRITABLE``; the end of a connection counts as either.
    """

    def __init__(self, fd: int, events: int = READABLE) -> None:
        self._entry = _PollFd(fd, events, 0)
        self._pointer = ctypes.pointer(self._entry)

    def now(self) -> bool:
        """Tell whether it has happened, without waiting."""
        return int(_poll(self._pointer, 1, 0)) > 0

    def until(self, deadline: float) -> bool:
        """Wait until it happens or ``time.monotonic()`` reaches ``deadline``.

        A signal ends a wait early; the next goes on for what is left.
        """
        while True:
            left_ms = max(0, round((deadline - time.monotonic()) * 1000 + 0.5))
            if int(_poll(self._pointer, 1, left_ms)) > 0:
                return True
            if time.monotonic() >= deadline:
                return False

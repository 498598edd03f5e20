"""Faults that need no call to be felt: each has a thread of its own while it lasts."""

import logging
import mmap
import threading
import time
from collections.abc import Callable

from terminal_sim.faults.kinds import AccountSwitched, Fault, Freeze, MemoryGrowth
from terminal_sim.terminal.frozen_sleep import hold_interpreter

_LOG = logging.getLogger("terminal_sim")
_MB = 1024 * 1024
# How often memory grows: often enough to look like growth, seldom enough to cost nothing.
_GROWTH_S = 0.1
# Between two freezes of no length everybody else has to come to a turn.
_SHORTEST_PAUSE_S = 0.05


class Episode:
    """One fault at work in its thread.

    Args:
        fault: The fault.
        acted: Called whenever it has acted.
    """

    def __init__(self, fault: Fault, acted: Callable[[], None]) -> None:
        self._left = fault.times
        self._until = None if fault.seconds is None else time.monotonic() + fault.seconds
        self._acted = acted
        self._mended = threading.Event()

    def start(self, name: str, serving: threading.Event) -> None:
        """Begin, in a thread of that name, as soon as the terminal serves."""

        def run() -> None:
            serving.wait()
            self._run()

        threading.Thread(target=run, name=name, daemon=True).start()

    def mend(self) -> None:
        """End it as soon as it can."""
        self._mended.set()

    def _run(self) -> None:
        raise NotImplementedError

    def _count(self) -> None:
        self._acted()
        if self._left is not None:
            self._left -= 1

    def _pause(self, seconds: float) -> bool:
        """Wait, and return whether the fault still lasts."""
        if self._until is not None:
            seconds = min(seconds, max(self._until - time.monotonic(), 0.0))
        mended = self._mended.wait(seconds)
        over = self._until is not None and time.monotonic() >= self._until
        return not mended and not over and self._left != 0


class Freezing(Episode):
    """Holds the interpreter, again after a pause as long while the fault lasts."""

    def __init__(self, fault: Freeze, acted: Callable[[], None]) -> None:
        super().__init__(fault, acted)
        self._hold_s = fault.hold_s

    def _run(self) -> None:
        going = True
        while going:
            # Counted before: whoever kills a frozen process has seen the freeze.
            self._count()
            hold_interpreter(self._hold_s)
            going = self._pause(max(self._hold_s, _SHORTEST_PAUSE_S))


class Growing(Episode):
    """Takes memory page by page and keeps it until the end."""

    def __init__(self, fault: MemoryGrowth, acted: Callable[[], None]) -> None:
        super().__init__(fault, acted)
        self._rate = fault.mb_per_s * _MB
        self._limit = round(fault.limit_mb * _MB)

    def _run(self) -> None:
        began = time.monotonic()
        held: list[mmap.mmap] = []
        size = 0
        self._count()
        while self._pause(_GROWTH_S):
            wanted = min(round(self._rate * (time.monotonic() - began)), self._limit)
            if wanted - size >= mmap.PAGESIZE:
                held.append(_touched(wanted - size))
                size = wanted
        for block in held:
            block.close()
        _LOG.info("gave back %d MB", size // _MB)


class Switching(Episode):
    """Logs another account in, as somebody at the terminal's window would."""

    def __init__(
        self,
        fault: AccountSwitched,
        acted: Callable[[], None],
        switch: Callable[[AccountSwitched], None],
    ) -> None:
        super().__init__(fault, acted)
        self._fault = fault
        self._switch = switch

    def _run(self) -> None:
        self._switch(self._fault)
        self._count()


def _touched(size: int) -> mmap.mmap:
    """Return new memory that is really there; closing it gives it back to the system at once."""
    block = mmap.mmap(-1, size)
    for offset in range(0, size, mmap.PAGESIZE):
        block[offset] = 1
    return block

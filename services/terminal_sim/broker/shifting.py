"""Shifts of a server's wall clock: faults that begin and end, kept in the journal."""

import time
from collections.abc import Callable

from terminal_sim.broker.journal import Journal, Shift
from terminal_sim.faults.kinds import ClockShift

_MINUTE_S = 60


class Shifting:
    """The shifts so far.

    Whatever an earlier process left shifted is shifted back at once: whoever wants the fault to
    go on injects it again.

    Args:
        journal: Where shifts are kept.
        now_ms: The present (UTC epoch milliseconds).
        clock: Monotonic seconds.
    """

    def __init__(
        self, journal: Journal, now_ms: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._shifts = list(journal.shifts())
        self._active: dict[int, tuple[int, float | None]] = {
            shift.fault: (shift.by_ms, None) for shift in self._shifts if shift.fault is not None
        }
        self.mend(None, now_ms)

    @property
    def shifts(self) -> tuple[tuple[int, int], ...]:
        """All shifts: UTC instant and by how many ms, oldest first."""
        return tuple((shift.at_ms, shift.by_ms) for shift in self._shifts)

    def inject(self, fault_id: int, fault: ClockShift, now_ms: int) -> None:
        """Put the clock forward or back.

        Raises:
            ValueError: Not by whole minutes: bars would begin within a minute.
        """
        if fault.by_s % _MINUTE_S:
            raise ValueError("a clock is shifted by whole minutes: by_s must be a multiple of 60")
        self.mend(fault_id, now_ms)
        ends = None if fault.seconds is None else self._clock() + fault.seconds
        self._active[fault_id] = fault.by_s * 1000, ends
        self._add(Shift(now_ms + 1, fault.by_s * 1000, fault_id))

    def mend(self, fault_id: int | None, now_ms: int) -> bool:
        """Take a fault's shift back, or all; tell whether there was one."""
        wanted = [each for each in self._active if fault_id in {None, each}]
        for each in wanted:
            by_ms, _ = self._active.pop(each)
            self._journal.end_fault(each)
            self._add(Shift(now_ms + 1, -by_ms))
        return bool(wanted)

    def ended(self, now_ms: int) -> bool:
        """Take back the shifts whose time is up; tell whether there was one."""
        now = self._clock()
        over = [
            each for each, (_, ends) in self._active.items() if ends is not None and now >= ends
        ]
        for each in over:
            self.mend(each, now_ms)
        return bool(over)

    def _add(self, shift: Shift) -> None:
        self._shifts.append(shift)
        self._journal.shift(shift)

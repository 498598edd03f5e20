"""The faults that are on in a process."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from terminal_sim.faults.kinds import Fault

F = TypeVar("F", bound=Fault)


class ActiveFaults:
    """Faults by their ids; those whose time is up, or that have acted often enough, are gone.

    Not locked: whoever shares it between threads holds a lock of its own.

    Args:
        spent: Called with the id whenever a fault has acted.
        clock: Monotonic seconds.
    """

    def __init__(
        self, spent: Callable[[int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spent = spent
        self._clock = clock
        self._faults: dict[int, tuple[Fault, float | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, fault_id: int, fault: Fault) -> None:
        """Begin a fault; its ``seconds`` count from now."""
        ends = None if fault.seconds is None else self._clock() + fault.seconds
        self._faults[fault_id] = fault, ends

    def remove(self, fault_id: int | None) -> None:
        """End a fault, or all; one that is not there has already ended."""
        if fault_id is None:
            self._faults.clear()
        else:
            self._faults.pop(fault_id, None)

    def first(self, kind: type[F], wanted: Callable[[F], bool] = lambda _fault: True) -> F | None:
        """Return the oldest fault of a kind that is wanted, without counting it as having acted."""
        return next((fault for _, fault in self._of(kind) if wanted(fault)), None)

    def take(self, kind: type[F], wanted: Callable[[F], bool] = lambda _fault: True) -> F | None:
        """Return what :meth:`first` does and count that it has acted."""
        for fault_id, fault in self._of(kind):
            if wanted(fault):
                self._count(fault_id, fault)
                return fault
        return None

    def _of(self, kind: type[F]) -> Iterator[tuple[int, F]]:
        if not self._faults:
            return
        now = self._clock()
        for fault_id, (fault, ends) in list(self._faults.items()):
            if ends is not None and now >= ends:
                del self._faults[fault_id]
            elif isinstance(fault, kind):
                yield fault_id, fault

    def _count(self, fault_id: int, fault: Fault) -> None:
        self._spent(fault_id)
        if fault.times is None:
            return
        if fault.times == 1:
            del self._faults[fault_id]
            return
        left = msgspec.structs.replace(fault, times=fault.times - 1)
        self._faults[fault_id] = left, self._faults[fault_id][1]

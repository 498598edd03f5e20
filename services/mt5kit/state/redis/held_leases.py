"""The leases a replica holds, and until when it may believe so."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mt5kit.state.redis.connection import TIMEOUT_S
from mt5kit.state.redis.leases import Lease

_SLOWEST_FAILURE_S = 3 * TIMEOUT_S
"""A renewal may wait for a free connection, for its answer, and for a new connection."""


class HeldLeases:
    """Leases by terminal, in the order they were gained, and until when each is believed.

    A lease is believed for one life (`ttl_s`) after Redis was asked and said yes. Every attempt to
    renew it that Redis leaves unanswered makes that one life (and the time in which an attempt
    fails) from when it began: while Redis is known to be away, nobody can get a newer token. Only
    a lease that was still believed when the attempt began is prolonged so, and only by an attempt
    that took no longer than one can: otherwise it was not Redis that stood still. A process that
    was stopped for longer than a life (SIGSTOP, a frozen host) thus believes nothing when it wakes,
    whatever Redis was like before and is like now, until Redis has said yes again. What counts is
    when a question was put, so being stopped between question and answer changes nothing.

    Args:
        ttl_s: Life of a lease without renewal.
        clock: Monotonic seconds, which go on while the process is stopped.
    """

    def __init__(self, ttl_s: float, clock: Callable[[], float]) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._leases: dict[str, Lease] = {}
        self._until: dict[str, float] = {}

    @property
    def leases(self) -> Mapping[str, Lease]:
        """The leases; changes with them."""
        return MappingProxyType(self._leases)

    def confirm(self, lease: Lease, asked_at: float) -> None:
        """Redis was asked for a lease at a time of the clock and said yes."""
        self._leases[lease.terminal_id] = lease
        self._until[lease.terminal_id] = asked_at + self._ttl_s

    def unanswered(self, asked_at: float) -> None:
        """Redis was asked at a time of the clock and now has not answered."""
        if self._clock() - asked_at > _SLOWEST_FAILURE_S:
            return
        for terminal_id, until in self._until.items():
            if until >= asked_at:
                prolonged = asked_at + self._ttl_s + _SLOWEST_FAILURE_S
                self._until[terminal_id] = max(until, prolonged)

    def drop(self, terminal_id: str) -> bool:
        """Forget a lease; False if there was none."""
        self._until.pop(terminal_id, None)
        return self._leases.pop(terminal_id, None) is not None

    def lapsed_s(self, terminal_id: str) -> float:
        """Seconds since Redis said yes, at most; 0 while a lease that is held is believed."""
        if self.believed(terminal_id):
            return 0.0
        return self._clock() - self._until[terminal_id] + self._ttl_s + _SLOWEST_FAILURE_S

    def believed(self, terminal_id: str) -> bool:
        """Whether a lease that is held may be used now."""
        return self._clock() <= self._until[terminal_id]

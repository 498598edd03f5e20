"""What a replica's lease keeper keeps."""

import re
from collections.abc import Callable, Sequence

import msgspec

from mt5kit.state.keys import Role
from mt5kit.state.redis.leases import LEASE_TTL_MS

_RENEWALS_PER_TTL = 4
"""Three renewals may fail before the lease runs out."""


_TASK = re.compile(r"(.+\.\d+)\.[0-9a-z]{25}")
"""What Swarm calls a task: service, slot, and an id that no other task has."""


def slot_of(replica: str) -> str:
    """The slot of a replica that is named as its Swarm task is; any other is a slot by itself.

    For a while an update that starts first has two tasks in one slot.
    """
    task = _TASK.fullmatch(replica)
    return task.group(1) if task else replica


class KeeperPlan(msgspec.Struct, frozen=True):
    """What a keeper keeps.

    Args:
        role: Which terminals, and which replicas share them.
        owner: This replica, by its instance id.
        terminals: The terminals that there are now, in the same order on every replica. One that
            is held and not among them is given back.
        own: Those of this replica's slot; taken first and given back last.
        ttl_ms: Life of a lease without renewal.
        interval_s: Seconds between rounds; a quarter of the life unless given.
        url: Where this replica answers the others; goes into its leases.
    """

    role: Role
    owner: str
    terminals: Callable[[], Sequence[str]]
    own: frozenset[str] = frozenset()
    ttl_ms: int = LEASE_TTL_MS
    interval_s: float | None = None
    url: str = ""

    @property
    def pause_s(self) -> float:
        """Seconds between rounds."""
        return self.interval_s or self.ttl_ms / 1000 / _RENEWALS_PER_TTL

"""What a replica's lease keeper keeps."""

from collections.abc import Callable, Sequence

import msgspec

from mt5kit.state.keys import Role
from mt5kit.state.redis.leases import LEASE_TTL_MS

_RENEWALS_PER_TTL = 4
"""Three renewals may fail before the lease runs out."""


class KeeperPlan(msgspec.Struct, frozen=True):
    """What a keeper keeps.

    Args:
        role: Which terminals, and which replicas share them.
        owner: This replica, by its instance id.
        terminals: The terminals that exist now, the same on every replica.
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

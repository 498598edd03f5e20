"""What the accounts of a replica share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mt5kit.state.redis import LeaseKeeper, LeaseStore, LiveStore
from websocket_pool.owner import OwnerParts
from websocket_pool.terminals import Terminals


@dataclass(frozen=True, slots=True)
class StreamParts:
    """What the accounts of a replica share.

    Args:
        instance_id: This replica.
        keeper: Holds the leases of some terminals.
        leases: Who holds the others.
        terminals: Every stream terminal.
        owner: What owners share.
        candidates: Terminals that may be given to an account, the best first.
        leaving: Terminals that are being given to another replica.
        settle_s: After Redis has forgotten something, nobody begins to poll before this is over
            but whoever was handed a line: owners that it has forgotten have found out by then.
    """

    instance_id: str
    keeper: LeaseKeeper
    leases: LeaseStore
    terminals: Terminals
    owner: OwnerParts
    candidates: Callable[[], Sequence[str]]
    leaving: set[str]
    settle_s: float

    @property
    def live(self) -> LiveStore:
        """Where replicas hear of each other's accounts."""
        return self.owner.live

    def ours(self, terminal_id: str) -> bool:
        """Whether this replica is to poll the account of a terminal."""
        return terminal_id in self.keeper.held and terminal_id not in self.leaving

"""Which stream terminals this replica takes up: of those that there are, its share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from mt5kit.service.departures import Departures
from mt5kit.service.roster import Roster
from mt5kit.state.redis import KeeperPlan, Lease, LeaseKeeper, LeaseStore
from mt5kit.terminal.names import Names
from websocket_pool.hub import Hub
from websocket_pool.wiring import Wiring


@dataclass(frozen=True, slots=True)
class Leasing:
    """The leases, and what decides which there are.

    Attributes:
        keeper: Holds the leases.
        names: Which terminals have an address; None where all do.
        roster: Which there are, as all replicas have it.
        departures: Which of ours are about to end.
    """

    keeper: LeaseKeeper
    names: Names | None
    roster: Roster
    departures: Departures

    @classmethod
    def of(cls, wiring: Wiring, leases: LeaseStore, hub: Callable[[], Hub]) -> Self:
        """Wire them; nothing is connected before `start`."""
        keeper: LeaseKeeper
        names, terminals = wiring.names, wiring.terminals

        def held() -> dict[str, bool]:
            return {one: terminals.up(one) for one in keeper.held}

        roster = Roster(terminals.ids, names.there if names else _there, held)
        departures = Departures(wiring.supervisors, roster.drains)

        def gained(lease: Lease) -> None:
            departures.gained(lease.terminal_id)
            hub().gained(lease)

        def lost(terminal_id: str) -> None:
            departures.lost(terminal_id)
            hub().lost(terminal_id)

        plan = KeeperPlan(
            role="stream",
            owner=wiring.rules.instance_id,
            terminals=roster.terminals,
            own=wiring.own,
            ttl_ms=wiring.lease_ttl_ms,
            interval_s=wiring.lease_interval_s,
        )
        keeper = LeaseKeeper(
            leases,
            plan,
            on_gained=gained,
            on_losing=lambda terminal_id: hub().losing(terminal_id),
            on_lost=lost,
        )
        return cls(keeper, names, roster, departures)

    def start(self) -> None:
        """Begin to look for terminals, and to take leases."""
        self.keeper.start()
        if self.names is not None:
            self.names.start(self.keeper.poke)

    async def aclose(self) -> None:
        """Give all leases back, then end what looked after them."""
        await self.keeper.close()
        if self.names is not None:
            await self.names.aclose()
        await self.departures.aclose()


def _there(_: str) -> bool:
    """Where nothing is looked up, all are there."""
    return True

"""Which terminals this replica takes up: of those that there are, its share."""

from dataclasses import dataclass
from typing import Self

from api_pool.fleet import Fleet, FleetParts
from api_pool.settings import ApiSettings
from mt5kit.secret import Secret
from mt5kit.service.departures import Departures
from mt5kit.service.roster import Roster
from mt5kit.state.redis import KeeperPlan, LeaseKeeper, LeaseStore
from mt5kit.terminal.names import Names
from mt5kit.terminal.supervisor import Supervisors


@dataclass(frozen=True, slots=True)
class Leasing:
    """The fleet, and what decides which terminals it has.

    Attributes:
        fleet: The terminals of this replica.
        keeper: Holds their leases.
        names: Which terminals have an address.
        roster: Which there are, as all replicas have it.
        departures: Which of ours are about to end.
    """

    fleet: Fleet
    keeper: LeaseKeeper
    names: Names
    roster: Roster
    departures: Departures

    @classmethod
    def of(cls, settings: ApiSettings, leases: LeaseStore, parts: FleetParts) -> Self:
        """Wire them; nothing is connected before `start`."""
        fleet: Fleet
        names = Names(parts.addresses.values(), parts.guard)
        # The fleet is made below: it asks the roster.
        roster = Roster(parts.addresses, names.there, lambda: fleet.connected())  # noqa: PLW0108
        key = settings.supervisor_key
        supervisors = Supervisors(
            settings.supervisor_port, None if key is None else Secret(key.get_secret_value())
        )
        departures = Departures(supervisors, roster.drains)
        fleet = Fleet(parts, departures)
        plan = KeeperPlan(
            "api",
            settings.instance_id,
            roster.terminals,
            settings.own_terminals,
            ttl_ms=settings.lease_ttl_ms,
            url=settings.reached_at,
        )
        keeper = LeaseKeeper(
            leases, plan, on_gained=fleet.gained, on_losing=fleet.losing, on_lost=fleet.lost
        )
        fleet.attach(keeper)
        return cls(fleet, keeper, names, roster, departures)

    def start(self) -> None:
        """Begin to look for terminals, and to take leases."""
        self.fleet.start()
        self.names.start(self.keeper.poke)

    async def aclose(self) -> None:
        """Give all leases back, then end what looked after them."""
        await self.fleet.hand_over()
        await self.names.aclose()
        await self.departures.aclose()

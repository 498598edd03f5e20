"""What a replica exchanges with the others each second, through the state store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from api_pool.budget import ServerBudget
from api_pool.demand import ReadCounter
from api_pool.fleet import Fleet, OwnedTerminal
from api_pool.limits import RateLimiter
from api_pool.places import Board, Places
from api_pool.sessions import SessionAccounts
from mt5kit.domain.instants import now_ms
from mt5kit.service.roster import Roster
from mt5kit.state.redis import (
    BoardStore,
    DemandStore,
    LeaseStore,
    PlacementStore,
    ShareStore,
)
from mt5kit.telemetry.session_metrics import SessionMetrics

log = structlog.get_logger(__name__)

PULSE_S: Final = 1.0
# Sessions are evened out slowly: each one moved costs a login.
MOVES_S: Final = 5.0
MOST_MOVES: Final = 2
# One more and one fewer is as even as it gets.
UNEVEN: Final = 2
# Nobody has asked for it for so long that its place is better free.
FORGOTTEN_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class PulseStores:
    """Where it is exchanged."""

    board: BoardStore
    demand: DemandStore
    placements: PlacementStore
    shares: ShareStore
    leases: LeaseStore


class Pulse:
    """Tells the others of our terminals and reads, and learns of theirs.

    Args:
        stores: Where it is exchanged.
        fleet: Our terminals.
        board: All terminals.
        roster: Which there are.
        places: Moves accounts.
        counter: Reads answered here.
        sessions: Accounts served here.
        keys: Limits of the service keys; their rate is shared with the other replicas.
        accounts: Limits of the accounts, likewise.
        budget: Learns how many replicas there are.
        metrics: Of sessions.
    """

    def __init__(  # noqa: PLR0913 - a composition root's list of parts
        self,
        *,
        stores: PulseStores,
        fleet: Fleet,
        board: Board,
        roster: Roster,
        places: Places,
        counter: ReadCounter,
        sessions: SessionAccounts,
        keys: RateLimiter,
        accounts: RateLimiter,
        budget: ServerBudget,
        metrics: SessionMetrics,
    ) -> None:
        self._stores = stores
        self._fleet = fleet
        self._board = board
        self._roster = roster
        self._places = places
        self._counter = counter
        self._sessions = sessions
        self._keys = keys
        self._accounts = accounts
        self._budget = budget
        self._metrics = metrics

    async def beat(self) -> None:
        """Exchange everything once.

        Raises:
            StateUnavailable: The state store is away; what was counted is lost, nothing else.
        """
        self._fleet.measure()
        ours = self._fleet.entries()
        await self._stores.board.publish(ours)
        told = await self._stores.board.read()
        self._roster.told(told)
        self._board.told({one: entry for one, entry in told.items() if one not in ours})
        await self._exchange_demand()
        await self._share_limits()

    async def even_out(self) -> None:
        """Move a few sessions off our terminals that have most, and drop the forgotten ones.

        Raises:
            StateUnavailable: The state store is away.
        """
        up = [*self._board.up()]
        for owned in list(self._fleet.owned.values()):
            dropped = await self._stores.placements.drop_idle(owned.terminal_id, FORGOTTEN_MS)
            self._fleet.part_with(owned.terminal_id, dropped, moved=False)
            if owned.terminal_id in up:
                await self._relieve(owned, up)

    async def _exchange_demand(self) -> None:
        reads = self._counter.take()
        owned = dict(self._fleet.owned)
        await self._stores.demand.add(
            {one: accounts for one, accounts in reads.items() if one not in owned}
        )
        told = await self._stores.demand.take([*owned])
        size = capacity = 0
        used: dict[str, int] = {}
        elsewhere: dict[str, int] = {}
        served: set[str] = set()
        for terminal_id, terminal in owned.items():
            placed = await self._stores.placements.sessions(terminal_id)
            for source in (reads.get(terminal_id, {}), told.get(terminal_id, {})):
                here = {account: times for account, times in source.items() if account in placed}
                terminal.demand.add(here)
                used |= dict.fromkeys(here, now_ms())
                for account in source.keys() - here.keys():
                    elsewhere[account] = elsewhere.get(account, 0) + source[account]
            self._fleet.part_with(terminal_id, terminal.demand.keep(placed), moved=False)
            served |= placed.keys()
            size += len(placed)
            capacity += self._board.room(terminal_id).capacity
        self._sessions.keep(served)
        await self._stores.placements.touch(used)
        await self._pass_on(elsewhere)
        self._metrics.pool_size.set(size)
        self._metrics.pool_capacity.set(capacity)

    async def _pass_on(self, reads: Mapping[str, int]) -> None:
        """Tell the demand of accounts that have moved to where they are now.

        Until a look of the new terminal is answered, their reads are counted for the old one.
        """
        if not reads:
            return
        places = await self._stores.placements.where_many([*reads])
        moved: dict[str, dict[str, int]] = {}
        for account_id, terminal_id in places.items():
            moved.setdefault(terminal_id, {})[account_id] = reads[account_id]
        await self._stores.demand.add(moved)

    async def _share_limits(self) -> None:
        replicas = max(len(await self._stores.leases.replicas("api")), 1)
        self._budget.replicas = replicas
        me = self._fleet.instance_id
        self._keys.set_default_share(self._keys.rate / replicas)
        self._accounts.set_default_share(self._accounts.rate / replicas)
        limiters: dict[Literal["key", "account"], RateLimiter] = {
            "key": self._keys,
            "account": self._accounts,
        }
        for kind, limiter in limiters.items():
            shares = await self._stores.shares.share(kind, me, limiter.demands(), limiter.rate)
            limiter.set_shares(shares)

    async def _relieve(self, owned: OwnedTerminal, up: list[str]) -> None:
        counts = await self._stores.placements.counts(up)
        mine = counts.get(owned.terminal_id, 0)
        emptiest = min(up, key=lambda one: counts.get(one, 0))
        excess = mine - counts.get(emptiest, 0)
        if excess < UNEVEN or mine < max(counts.values()):
            return
        rates = owned.demand.rates()
        # The least read ones: they wait longest for their next look anyway, wherever it is taken.
        sessions = [
            one
            for one in await self._stores.placements.sessions(owned.terminal_id)
            if one != owned.scheduler.current
        ]
        sessions.sort(key=lambda one: rates.get(one, 0.0))
        for account_id in sessions[: min(MOST_MOVES, excess // 2)]:
            if await self._places.move(account_id, owned.terminal_id, emptiest):
                log.info("session_moved", source=owned.terminal_id, target=emptiest)
                self._fleet.part_with(owned.terminal_id, (account_id,), moved=True)

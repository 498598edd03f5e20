"""The API terminals of this replica: a lease, a link, a scheduler and what is read of each."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from api_pool.demand import DemandBook
from api_pool.journal import TerminalJournal
from api_pool.looks import Looks
from api_pool.sessions import SessionAccounts
from mt5kit.domain.instants import now_ms
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import LoginRefused, Mt5SwarmError, TerminalMoved
from mt5kit.service.departures import Departures
from mt5kit.state.redis import Lease, LeaseKeeper, TerminalEntry
from mt5kit.telemetry.session_metrics import SessionMetrics
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.link import TerminalLink
from mt5kit.terminal.scheduling import (
    Entrant,
    LoginBudget,
    RefusalMemory,
    SchedulerParts,
    TerminalScheduler,
)
from mt5kit.terminal.supervisor import Peer

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class OwnedTerminal:
    """A terminal for as long as this replica holds its lease."""

    terminal_id: str
    link: TerminalLink
    scheduler: TerminalScheduler
    demand: DemandBook
    since_ms: int = field(default_factory=now_ms)
    was_up: bool = False

    @property
    def up(self) -> bool:
        """Whether it takes turns."""
        return self.link.connected and self.scheduler.up

    def entry(self, owner: str, *, draining: bool) -> TerminalEntry:
        """What the board says of it."""
        if self.up is not self.was_up:
            self.was_up, self.since_ms = self.up, now_ms()
        switch_s = self.scheduler.switch_s
        return TerminalEntry(
            owner=owner,
            up=self.up,
            since_ms=self.since_ms,
            switch_ms=None if switch_s is None else round(switch_s * 1000),
            waiting=self.scheduler.waiting,
            draining=draining,
        )


@dataclass(frozen=True, slots=True)
class FleetParts:
    """What the terminals of a replica share."""

    instance_id: str
    addresses: Mapping[str, TerminalAddress]
    guard: AddressGuard
    sessions: SessionAccounts
    looks: Looks
    budget: LoginBudget
    metrics: TerminalMetrics
    session_metrics: SessionMetrics
    refusals: RefusalMemory
    journal: TerminalJournal


class Fleet:
    """Takes up a terminal when its lease is gained, and lays it down when it goes.

    Args:
        parts: What the terminals share.
        departures: Which of them are about to end.
    """

    def __init__(self, parts: FleetParts, departures: Departures) -> None:
        self._parts = parts
        self._departures = departures
        self._owned: dict[str, OwnedTerminal] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._keeper: LeaseKeeper | None = None

    @property
    def instance_id(self) -> str:
        """This replica."""
        return self._parts.instance_id

    @property
    def owned(self) -> Mapping[str, OwnedTerminal]:
        """The terminals this replica holds now."""
        return self._owned

    def attach(self, keeper: LeaseKeeper) -> None:
        """Learn who holds the leases; the keeper in turn tells `gained`, `losing` and `lost`."""
        self._keeper = keeper

    def entries(self) -> dict[str, TerminalEntry]:
        """What the board is to say of our terminals."""
        me, drain = self.instance_id, self._departures.drain
        return {one: owned.entry(me, draining=drain(one)) for one, owned in self._owned.items()}

    def connected(self) -> dict[str, bool]:
        """Our terminals, and whether a connection to each stands."""
        return {one: owned.link.connected for one, owned in self._owned.items()}

    def peers(self) -> dict[str, Peer | None]:
        """What the links of our terminals are connected to."""
        return {one: owned.link.peer for one, owned in self._owned.items()}

    def measure(self) -> None:
        """Put into the metrics which of our terminals are up: a frozen one is connected, too."""
        for terminal_id, owned in self._owned.items():
            self._parts.metrics.up.labels(terminal_id).set(owned.up)

    def forget_refusals(self) -> None:
        """Let the stored state alone say which credentials were refused."""
        self._parts.refusals.clear_all()

    def start(self) -> None:
        """Begin to take leases."""
        self._leases().start()

    def holds(self, terminal_id: str) -> bool:
        """Whether the terminal is this replica's now."""
        return terminal_id in self._owned

    def terminal(self, terminal_id: str) -> OwnedTerminal:
        """A terminal that this replica holds.

        Raises:
            TerminalMoved: It is another's, or nobody's.
        """
        owned = self._owned.get(terminal_id)
        if owned is None:
            raise TerminalMoved(f"terminal {terminal_id} is not held by this replica")
        return owned

    def credentials_proven(self, account_id: str) -> None:
        """Forget that the account's credentials were refused: a broker accepts them again."""
        self._parts.refusals.clear(account_id)

    def describe(self) -> dict[str, object]:
        """For `/health/ready`: which terminals are leased here and how they are."""
        return {
            terminal_id: {
                "leased": terminal_id in self._owned,
                "connected": terminal_id in self._owned and self._owned[terminal_id].link.connected,
                "up": terminal_id in self._owned and self._owned[terminal_id].up,
                "draining": terminal_id in self._owned and self._departures.drain(terminal_id),
            }
            for terminal_id in self._parts.addresses
        }

    def gained(self, lease: Lease) -> None:
        """Take up a terminal."""
        terminal_id = lease.terminal_id
        parts = self._parts
        parts.session_metrics.lease_events.labels("gained").inc()
        parts.journal.note(terminal_id, "leased", {"token": lease.token})
        link = TerminalLink(parts.addresses[terminal_id], parts.guard, parts.metrics)
        demand = DemandBook()
        scheduler = TerminalScheduler(
            link,
            lambda: self._leases().token_of(terminal_id),
            SchedulerParts(
                metrics=parts.metrics,
                budget=parts.budget,
                source=_Refresh(demand, parts.sessions),
                events=_Events(terminal_id, parts),
                refusals=parts.refusals,
            ),
        )
        self._departures.gained(terminal_id)
        self._owned[terminal_id] = OwnedTerminal(terminal_id, link, scheduler, demand)
        link.start()
        scheduler.start()

    async def losing(self, terminal_id: str) -> None:
        """Let the call in progress end, before the lease is given back."""
        owned = self._owned.get(terminal_id)
        if owned is not None:
            await owned.scheduler.hand_over()
            await self._parts.sessions.recorded()

    def lost(self, terminal_id: str) -> None:
        """Lay down a terminal: whoever asks for it from now on is refused."""
        owned = self._owned.pop(terminal_id, None)
        if owned is None:
            return
        self._departures.lost(terminal_id)
        self._parts.session_metrics.lease_events.labels("lost").inc()
        self._parts.journal.note(terminal_id, "released")
        task = asyncio.create_task(self._lay_down(owned), name=f"lay-down-{terminal_id}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def part_with(self, terminal_id: str, accounts: Iterable[str], *, moved: bool) -> None:
        """Accounts are not on a terminal of ours any more.

        Args:
            terminal_id: Which.
            accounts: Which.
            moved: Whether they are elsewhere: then the call in progress is answered yet.
        """
        owned = self._owned.get(terminal_id)
        if owned is None:
            return
        gone = tuple(accounts)
        owned.demand.forget(gone)
        for account_id in gone:
            if moved:
                owned.scheduler.leave(account_id)
            else:
                owned.scheduler.forget(account_id)
            self._parts.sessions.forget(account_id)

    def give_up(self, terminal_id: str) -> None:
        """Lay a terminal down that nobody is to take up for now."""
        self._leases().give_up(terminal_id)

    async def hand_over(self) -> None:
        """Give all leases back, each as soon as the call in progress on its terminal has ended."""
        await self._leases().close()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _lay_down(self, owned: OwnedTerminal) -> None:
        try:
            await owned.scheduler.hand_over()
            await owned.link.aclose()
        except Exception:
            log.exception("terminal_not_laid_down", terminal_id=owned.terminal_id)
        if owned.terminal_id not in self._owned:
            # Its new owner says whether it is up.
            self._parts.metrics.forget_terminal(owned.terminal_id)

    def _leases(self) -> LeaseKeeper:
        if self._keeper is None:
            raise RuntimeError("the fleet was used before its keeper was attached")
        return self._keeper


class _Refresh:
    """A `RefreshSource`: what is read of a terminal's accounts."""

    def __init__(self, demand: DemandBook, sessions: SessionAccounts) -> None:
        self._demand = demand
        self._sessions = sessions

    def demand(self) -> Mapping[str, float]:
        return self._demand.rates()

    async def entrant(self, account_id: str) -> Entrant | None:
        return await self._sessions.to_refresh(account_id)


class _Events:
    """A `SchedulerEvents`: what a scheduler tells goes to memory, state store and database."""

    def __init__(self, terminal_id: str, parts: FleetParts) -> None:
        self._terminal_id = terminal_id
        self._parts = parts

    def looked(self, account_id: str, token: int, snapshot: Snapshot) -> None:
        self._parts.looks.looked(account_id, self._terminal_id, token, snapshot)
        self._parts.sessions.looked(account_id, connected=snapshot.terminal.connected)

    def refused(self, account_id: str, error: LoginRefused) -> None:
        self._parts.sessions.refused(account_id, error)

    def changed(self, up: bool, why: Mt5SwarmError | None) -> None:
        log.warning(
            "terminal_up" if up else "terminal_down",
            terminal_id=self._terminal_id,
            why=None if why is None else why.message,
        )
        detail = {} if why is None else {"why": why.message, "code": why.code}
        self._parts.journal.note(self._terminal_id, "up" if up else "down", detail)

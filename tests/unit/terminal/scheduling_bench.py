"""A scheduler in virtual time: hours pass in milliseconds, and always in the same order."""

import asyncio
import functools
import selectors
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Self, TypeVar

from prometheus_client import CollectorRegistry

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryPage, HistoryQuery, HistorySize
from mt5kit.domain.snapshots import Snapshot
from mt5kit.domain.trades import Deal, Order
from mt5kit.errors import (
    BrokerTimeout,
    LoginRefused,
    Mt5SwarmError,
    TerminalTimeout,
    TerminalUnavailable,
    WrongAccount,
)
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.answers import SignedIn
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.scheduling import (
    Entrant,
    RefusalMemory,
    SchedulerParts,
    SchedulerRules,
    TerminalScheduler,
)
from mt5kit.testing.fake_terminal import make_snapshot

P = ParamSpec("P")
T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: moves the clock of its loop."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits for nothing")
        # A little always passes, or a wait that rounds to nothing would never end.
        self.now += max(timeout, 1e-9)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time is what its timers make it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


def identity(number: int, server: str = "S") -> AccountIdentity:
    return AccountIdentity(number, server)


@functools.cache
def snapshot_of(who: AccountIdentity) -> Snapshot:
    return make_snapshot(who)


@dataclass(frozen=True)
class Call:
    op: str
    who: AccountIdentity | None
    began: float
    ended: float


class SwitchingTerminal:
    """An `AccountTerminal` that takes its time, holds one login and one call."""

    terminal_id = "t-1"

    def __init__(self, switch_s: float = 1.5, look_s: float = 0.005) -> None:
        self.switch_s, self.look_s = switch_s, look_s
        self.now_in: AccountIdentity | None = None
        self.calls: list[Call] = []
        self.passwords_tried: list[tuple[AccountIdentity, str]] = []
        self.refused: set[tuple[AccountIdentity, str]] = set()
        self.silent: set[str] = set()
        self.hanging: set[AccountIdentity] = set()
        self.renamed: dict[AccountIdentity, AccountIdentity] = {}
        self.faults: deque[Mt5SwarmError] = deque()
        self.away = self.frozen = False
        self._busy = False
        self.overlaps = 0

    async def sign_in(
        self,
        token: int,
        credentials: Credentials,
        *,
        must_prove: bool = False,
        deadline_s: float = 20,
    ) -> SignedIn:
        who = credentials.identity
        return await self._call(
            "prove" if must_prove else "login",
            who,
            lambda: self._login(credentials, must_prove, deadline_s),
            deadline_s,
        )

    async def _login(
        self, credentials: Credentials, must_prove: bool, deadline_s: float
    ) -> SignedIn:
        who = credentials.identity
        if self.now_in == who and not must_prove:
            await asyncio.sleep(self.look_s)
            return SignedIn(False, snapshot_of(who))
        self.now_in = None
        if who.server in self.silent or who in self.hanging:
            await asyncio.sleep(deadline_s - 2)
            raise BrokerTimeout("silence", retry_after_s=30)
        await asyncio.sleep(self.switch_s)
        password = credentials.password.reveal()
        self.passwords_tried.append((who, password))
        if (who, password) in self.refused:
            raise LoginRefused("no", details={"mt5_code": -6})
        self.now_in = self.renamed.get(who, who)
        return SignedIn(True, snapshot_of(self.now_in))

    async def snapshot(
        self, token: int, identity: AccountIdentity, *, deadline_s: float = 5
    ) -> Snapshot:
        who = identity
        return await self._call("look", who, lambda: self._look(who), deadline_s)

    async def _look(self, who: AccountIdentity) -> Snapshot:
        await asyncio.sleep(self.look_s)
        if self.now_in != who:
            raise WrongAccount("another")
        return snapshot_of(who)

    async def probe(self, token: int, *, deadline_s: float = 5) -> AccountIdentity | None:
        async def who() -> AccountIdentity | None:
            await asyncio.sleep(0.001)
            return self.now_in

        return await self._call("probe", None, who, deadline_s)

    async def chunk(self, who: AccountIdentity, seconds: float = 0.25) -> None:
        """A step of long work."""

        async def run() -> None:
            await asyncio.sleep(seconds)
            if self.now_in != who:
                raise WrongAccount("another")

        await self._call("chunk", who, run, 5.0)

    async def history_size(
        self, token: int, identity: AccountIdentity, *, deadline_s: float = 5
    ) -> HistorySize:
        raise NotImplementedError

    async def deals(
        self, token: int, identity: AccountIdentity, query: HistoryQuery, *, deadline_s: float = 5
    ) -> HistoryPage[Deal]:
        raise NotImplementedError

    async def orders(
        self, token: int, identity: AccountIdentity, query: HistoryQuery, *, deadline_s: float = 5
    ) -> HistoryPage[Order]:
        raise NotImplementedError

    def ops(self, *which: str) -> list[tuple[str, int | None]]:
        """Calls of these kinds, or of all but probes, in order."""
        wanted = which or ("login", "prove", "look", "chunk")
        return [(c.op, c.who.login if c.who else None) for c in self.calls if c.op in wanted]

    async def _call(
        self,
        op: str,
        who: AccountIdentity | None,
        run: Callable[[], Coroutine[Any, Any, T]],
        deadline_s: float,
    ) -> T:
        self.overlaps += self._busy
        self._busy = True
        began = now()
        try:
            if self.away:
                raise TerminalUnavailable("away")
            if self.frozen:
                await asyncio.sleep(deadline_s)
                raise TerminalTimeout("frozen")
            if self.faults and op != "probe":
                raise self.faults.popleft()
            return await run()
        finally:
            self._busy = False
            self.calls.append(Call(op, who, began, now()))


class Book:
    """Budget, demand and events of one scheduler, written down."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self.entrants: dict[str, Entrant] = {}
        self.source_fault: Exception | None = None
        self.take_s = 0.0
        self.granted: list[tuple[str, bool]] = []
        self.wait_s: Callable[[str, bool], float] = lambda _server, _spare: 0.0
        self.looks: list[tuple[str, float]] = []
        self.refusals: list[str] = []
        self.changes: list[bool] = []
        self.foreign: list[str] = []

    async def take(self, server: str, *, spare: bool) -> float:
        await asyncio.sleep(self.take_s)
        wait_s = self.wait_s(server, spare)
        if wait_s <= 0:
            self.granted.append((server, spare))
        return wait_s

    def demand(self) -> Mapping[str, float]:
        return self.rates

    async def entrant(self, account_id: str) -> Entrant | None:
        if self.source_fault is not None:
            raise self.source_fault
        return self.entrants.get(account_id)

    def looked(self, account_id: str, token: int, snapshot: Snapshot) -> None:
        self.looks.append((account_id, now()))
        known = self.entrants.get(account_id)
        if known is not None and known.identity != snapshot.identity:
            self.foreign.append(account_id)

    def refused(self, account_id: str, error: LoginRefused) -> None:
        self.refusals.append(account_id)

    def changed(self, up: bool, why: Mt5SwarmError | None) -> None:
        self.changes.append(up)


@dataclass
class Bench:
    """`async with Bench() as bench:` gives a running scheduler with its terminal and book."""

    rules: SchedulerRules = field(default_factory=SchedulerRules)
    terminal: SwitchingTerminal = field(default_factory=SwitchingTerminal)
    book: Book = field(default_factory=Book)
    passwords: dict[str, str] = field(default_factory=dict)
    no_lease: Mt5SwarmError | None = None
    refusals: RefusalMemory = field(default_factory=RefusalMemory)

    def __post_init__(self) -> None:
        self.metrics = TerminalMetrics(CollectorRegistry())

    async def __aenter__(self) -> Self:
        parts = SchedulerParts(self.metrics, self.book, self.book, self.book, self.refusals)
        self.scheduler = TerminalScheduler(self.terminal, self._token, parts, self.rules, now)
        self.scheduler.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.scheduler.hand_over()
        assert self.book.foreign == []
        assert self.terminal.overlaps == 0

    def _token(self) -> int:
        if self.no_lease is not None:
            raise self.no_lease
        return 7

    def entrant(self, number: int, server: str = "S") -> Entrant:
        """Account a<number>, known to the source."""
        account_id = f"a{number}"
        who = identity(number, server)
        if account_id not in self.book.entrants:
            self.book.entrants[account_id] = Entrant(account_id, who, self._credentials(who))
        return self.book.entrants[account_id]

    def _credentials(self, who: AccountIdentity) -> Callable[[], Awaitable[Credentials]]:
        async def credentials() -> Credentials:
            await asyncio.sleep(0.001)
            return Credentials(who, Secret(self.passwords.get(f"a{who.login}", "pw")))

        return credentials

    def ask(
        self, number: int, *, max_age_s: float = 0.0, deadline_s: float = 100.0
    ) -> "asyncio.Task[Any]":
        """Ask for a look, in a task of its own."""
        return asyncio.create_task(
            self.scheduler.look(self.entrant(number), max_age_s=max_age_s, deadline_s=deadline_s)
        )

    async def see(self, number: int, **how: float) -> Any:
        return await self.ask(number, **how)

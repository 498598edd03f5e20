"""Reading an account at no more than a given age: live stream, cache, or a terminal's turn."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from api_pool.answers import Meta, age
from api_pool.demand import ReadCounter
from api_pool.directory import AccountDirectory, KnownAccount
from api_pool.flights import Flights
from api_pool.history_pages import HistoryPages
from api_pool.looks import Looks
from api_pool.memory import Kept
from api_pool.routing import TurnRouter
from api_pool.seen import Seen
from api_pool.turns import HistoryKind, HistoryTurn, LookTurn, Taken
from mt5kit.domain.accounts import AccountState
from mt5kit.domain.history import HistoryPage, HistoryQuery, Row
from mt5kit.domain.trades import Deal, Order
from mt5kit.errors import (
    BrokerTimeout,
    LoginRefused,
    StaleToken,
    TerminalMoved,
    TerminalUnavailable,
    WrongAccount,
)
from mt5kit.telemetry.session_metrics import SessionMetrics

T = TypeVar("T")

# About us, not about the account.
_OURS: Final = (StaleToken, WrongAccount, TerminalMoved)


@dataclass(frozen=True, slots=True)
class Read:
    """A look at an account, and what is to be said of its origin."""

    seen: Seen
    meta: Meta


@dataclass(frozen=True, slots=True)
class HistoryRead(Generic[Row]):
    """A page of history, and what is to be said of its origin."""

    page: HistoryPage[Row]
    meta: Meta


class Reader:
    """Answers reads from the freshest source that is fresh enough.

    Args:
        directory: The accounts.
        looks: What has been seen.
        pages: Pages of history that have been read.
        router: Finds who takes a turn.
        counter: Counts reads, so that what is read is refreshed.
        metrics: Of ages.
        turn_deadline_s: How long a read may wait for its turn.
    """

    def __init__(  # noqa: PLR0913 - a composition root's list of parts
        self,
        *,
        directory: AccountDirectory,
        looks: Looks,
        pages: HistoryPages,
        router: TurnRouter,
        counter: ReadCounter,
        metrics: SessionMetrics,
        turn_deadline_s: float,
    ) -> None:
        self._directory = directory
        self._looks = looks
        self._pages = pages
        self._router = router
        self._counter = counter
        self._metrics = metrics
        self._deadline_s = turn_deadline_s
        self._flights = Flights()

    async def look(
        self, account: KnownAccount, max_age_ms: int, on_wait: Callable[[], None]
    ) -> Read:
        """The account as of at most `max_age_ms` ago.

        Args:
            account: Whose.
            max_age_ms: 0 waits for the next look.
            on_wait: Told before the caller is made to wait for a terminal.

        Raises:
            Conflict: The account is disconnected.
            LoginRefused: The broker refuses its credentials.
            ServiceOverloaded: No terminal has room, or the turn would not begin in time.
            TerminalUnavailable: No source is fresh enough and the terminal cannot answer.
        """
        account.require_connected()
        if max_age_ms == 0:
            on_wait()
        kept = await self._looks.kept(account.account_id, max_age_ms)
        # Another identity: it was kept before other credentials were connected to this id.
        if kept is not None and kept.seen.identity == account.identity:
            return self._answered(account, kept)
        on_wait()
        return await self._turn(account, max_age_ms)

    async def deals(
        self,
        account: KnownAccount,
        query: HistoryQuery,
        max_age_ms: int,
        on_wait: Callable[[], None],
    ) -> HistoryRead[Deal]:
        """A page of deals of the past; raises as `look` does."""
        page, meta = await self._history(account, "deals", query, max_age_ms, on_wait)
        return HistoryRead(msgspec.json.decode(page, type=HistoryPage[Deal]), meta)

    async def orders(
        self,
        account: KnownAccount,
        query: HistoryQuery,
        max_age_ms: int,
        on_wait: Callable[[], None],
    ) -> HistoryRead[Order]:
        """A page of finished orders of the past; raises as `look` does."""
        page, meta = await self._history(account, "orders", query, max_age_ms, on_wait)
        return HistoryRead(msgspec.json.decode(page, type=HistoryPage[Order]), meta)

    async def _history(
        self,
        account: KnownAccount,
        kind: HistoryKind,
        query: HistoryQuery,
        max_age_ms: int,
        on_wait: Callable[[], None],
    ) -> tuple[bytes, Meta]:
        account.require_connected()
        kept = await self._pages.kept(account, kind, query, max_age_ms)
        if kept is not None:
            return kept
        on_wait()
        turn = HistoryTurn(account.account_id, account.identity, kind, query)
        taken = await self._recorded(
            account, self._flights.share(turn, max_age_ms, lambda: self._take(turn))
        )
        self._pages.keep(account, kind, query, taken)
        return bytes(taken.payload), turn_meta(account.account_id, taken)

    async def _turn(self, account: KnownAccount, max_age_ms: int) -> Read:
        turn = LookTurn(account.account_id, account.identity, max_age_ms)
        asked = (account.account_id, account.identity)
        taken = await self._recorded(
            account, self._flights.share(asked, max_age_ms, lambda: self._take(turn))
        )
        seen = Seen.of_payload(bytes(taken.payload))
        if seen.identity != account.identity:
            # The owner has seen to it; no fault of it may show an account to another's user.
            raise WrongAccount("the look is of another account", retry_after_s=1)
        kept = Kept(seen, taken.terminal_id, taken.instance_id, "cache", taken.as_of_ms)
        self._looks.heard(account.account_id, kept)
        self._counter.count(taken.terminal_id, account.account_id)
        state = AccountState.CONNECTED if seen.connected else AccountState.BROKER_DISCONNECTED
        await self._directory.note(account, state)
        meta = turn_meta(account.account_id, taken)
        self._metrics.age.observe(meta.age_ms / 1000)
        return Read(seen, meta)

    def _take(self, turn: LookTurn | HistoryTurn) -> Awaitable[Taken]:
        return self._router.of_account(turn.account_id, turn, self._deadline_s)

    def _answered(self, account: KnownAccount, kept: Kept) -> Read:
        if kept.source == "cache":
            self._counter.count(kept.terminal_id, account.account_id)
        meta = kept.meta(account.account_id)
        self._metrics.age.observe(meta.age_ms / 1000)
        return Read(kept.seen, meta)

    async def _recorded(self, account: KnownAccount, turn: Awaitable[T]) -> T:
        """Await a turn and record in the account's state if it could not be taken."""
        try:
            return await turn
        except LoginRefused as refused:
            await self._directory.note(account, AccountState.LOGIN_FAILED, refused)
            raise
        except _OURS:
            raise
        except BrokerTimeout as silent:
            await self._directory.note(account, AccountState.BROKER_DISCONNECTED, silent)
            raise
        except TerminalUnavailable as unavailable:
            await self._directory.note(account, AccountState.TERMINAL_UNAVAILABLE, unavailable)
            raise


def turn_meta(account_id: str, taken: Taken) -> Meta:
    """What is to be said of an answer that a turn gave."""
    as_of, age_ms = age(taken.as_of_ms)
    return Meta(
        account_id=account_id,
        terminal_id=taken.terminal_id,
        instance_id=taken.instance_id,
        source="terminal",
        as_of=as_of,
        age_ms=age_ms,
        queue_wait_ms=taken.queue_wait_ms,
        broker_ms=taken.broker_ms,
    )

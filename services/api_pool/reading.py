"""Reading an account at no more than a given age: live stream, cache, or a terminal's turn."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec
import structlog

from api_pool.answers import Meta, Source, age
from api_pool.directory import AccountDirectory, KnownAccount
from api_pool.fleet import Fleet
from api_pool.looks import Looks
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.brokers import Brokers
from mt5kit.domain.history import HistoryPage, HistoryQuery, Row
from mt5kit.domain.instants import now_ms
from mt5kit.domain.snapshots import Snapshot
from mt5kit.domain.trades import Deal, Order
from mt5kit.errors import LoginRefused, StaleToken, TerminalUnavailable, WrongAccount
from mt5kit.state.redis import (
    CachedSnapshot,
    LiveState,
    StateUnavailable,
)
from mt5kit.terminal.protocol import AccountTerminal
from mt5kit.terminal.session import TerminalSession, Turn

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A poller looks at least once a second; beyond two it is gone, and a terminal turn is surer.
NEXT_LOOK_TIMEOUT_S: Final = 2.0
NEXT_LOOK_STEP_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Read:
    """A look at an account, and what is to be said of its origin."""

    snapshot: Snapshot
    meta: Meta


@dataclass(frozen=True, slots=True)
class HistoryRead(Generic[Row]):
    """A page of history, and what is to be said of its origin."""

    page: HistoryPage[Row]
    meta: Meta


class Reader:
    """Answers reads from the freshest source that is fresh enough.

    Args:
        instance_id: This replica.
        fleet: The terminals.
        directory: The accounts.
        looks: What others have seen.
        brokers: Clocks of the servers.
    """

    def __init__(
        self,
        instance_id: str,
        fleet: Fleet,
        directory: AccountDirectory,
        looks: Looks,
        brokers: Brokers,
    ) -> None:
        self.instance_id = instance_id
        self._fleet = fleet
        self._directory = directory
        self._looks = looks
        self._brokers = brokers

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
            TerminalUnavailable: No source is fresh enough and the terminal cannot answer.
        """
        account.require_connected()
        if max_age_ms == 0:
            on_wait()
        kept = await self._kept(account, max_age_ms)
        if kept is not None:
            return kept
        on_wait()
        return await self._turn(account)

    async def deals(self, account: KnownAccount, query: HistoryQuery) -> HistoryRead[Deal]:
        """A page of deals of the past; raises as `look` does."""
        return await self._history(account, query, lambda terminal: terminal.deals)

    async def orders(self, account: KnownAccount, query: HistoryQuery) -> HistoryRead[Order]:
        """A page of finished orders of the past; raises as `look` does."""
        return await self._history(account, query, lambda terminal: terminal.orders)

    async def _history(
        self,
        account: KnownAccount,
        query: HistoryQuery,
        read_of: Callable[
            [AccountTerminal],
            Callable[[int, AccountIdentity, HistoryQuery], Awaitable[HistoryPage[Row]]],
        ],
    ) -> HistoryRead[Row]:
        account.require_connected()
        terminal_id, session = await self._session(account)
        read = read_of(session.terminal)
        turn = await self._recorded(
            account,
            session.read(
                account.identity,
                lambda: self._directory.credentials(account),
                lambda token: read(token, account.identity, query),
            ),
        )
        clock = self._brokers.clock_of(account.identity.server)
        rows = tuple(row.in_utc(clock) for row in turn.value.rows)
        page = HistoryPage(rows, turn.value.more)
        return HistoryRead(page, self.turn_meta(account.account_id, terminal_id, now_ms(), turn))

    async def keep(
        self, account_id: str, terminal_id: str, token: int, snapshot: Snapshot
    ) -> Snapshot:
        """Put a terminal's look into the cache; gives it back with its UTC times."""
        seen = snapshot.in_utc(self._brokers.clock_of(snapshot.account.server))
        payload = msgspec.json.encode(seen)
        look = CachedSnapshot(seen.seen_ms, terminal_id, self.instance_id, payload)
        await self._looks.keep(account_id, token, look)
        return seen

    async def _kept(self, account: KnownAccount, max_age_ms: int) -> Read | None:
        asked_ms = now_ms()
        try:
            live = await self._looks.live_of(account.account_id)
            if live is not None and max_age_ms == 0:
                # For a streamed account the poller's next look is the turn (contracts §1).
                live = await self._next_look(account.account_id, asked_ms)
            if live is not None and live.as_of_ms >= asked_ms - max_age_ms:
                return self._read(account, "stream", live)
            cached = await self._looks.cached_of(account.account_id)
        except StateUnavailable as away:
            log.warning("read_without_state_store", error=away.message)
            return None
        if cached is not None and max_age_ms and cached.as_of_ms >= asked_ms - max_age_ms:
            return self._read(account, "cache", cached)
        return None

    async def _next_look(self, account_id: str, after_ms: int) -> LiveState | None:
        deadline = time.monotonic() + NEXT_LOOK_TIMEOUT_S
        while time.monotonic() < deadline:
            live = await self._looks.live_of(account_id)
            if live is None or live.as_of_ms >= after_ms:
                return live
            await asyncio.sleep(NEXT_LOOK_STEP_S)
        return None

    def _read(
        self,
        account: KnownAccount,
        source: Source,
        kept: LiveState | CachedSnapshot,
    ) -> Read | None:
        snapshot = msgspec.json.decode(kept.payload, type=Snapshot)
        if snapshot.identity != account.identity:
            # Kept under this id before other credentials were connected to it.
            return None
        as_of, age_ms = age(kept.as_of_ms)
        meta = Meta(
            account_id=account.account_id,
            terminal_id=kept.terminal_id,
            instance_id=kept.instance_id,
            source=source,
            as_of=as_of,
            age_ms=age_ms,
        )
        return Read(snapshot, meta)

    async def _turn(self, account: KnownAccount) -> Read:
        terminal_id, session = await self._session(account)
        turn = await self._recorded(
            account,
            session.look(account.identity, lambda: self._directory.credentials(account)),
        )
        seen = await self.keep(account.account_id, terminal_id, turn.token, turn.value)
        return Read(seen, self.turn_meta(account.account_id, terminal_id, seen.seen_ms, turn))

    async def _session(self, account: KnownAccount) -> tuple[str, TerminalSession]:
        terminal_id = await self._looks.place(account.account_id, self._fleet.terminal_ids)
        return terminal_id, self._fleet.session(terminal_id)

    async def _recorded(self, account: KnownAccount, turn: Awaitable[Turn[T]]) -> Turn[T]:
        """Await a turn and record in the account's state how it went."""
        try:
            result = await turn
        except LoginRefused as refused:
            await self._directory.note(account, AccountState.LOGIN_FAILED, refused)
            raise
        except (StaleToken, WrongAccount):
            # About us, not about the account.
            raise
        except TerminalUnavailable as unavailable:
            await self._directory.note(account, AccountState.TERMINAL_UNAVAILABLE, unavailable)
            raise
        if isinstance(result.value, Snapshot):
            connected = result.value.terminal.connected
            state = AccountState.CONNECTED if connected else AccountState.BROKER_DISCONNECTED
            await self._directory.note(account, state)
        return result

    def turn_meta(self, account_id: str, terminal_id: str, as_of_ms: int, turn: Turn[T]) -> Meta:
        """What is to be said of an answer that a turn gave."""
        as_of, age_ms = age(as_of_ms)
        return Meta(
            account_id=account_id,
            terminal_id=terminal_id,
            instance_id=self.instance_id,
            source="terminal",
            as_of=as_of,
            age_ms=age_ms,
            queue_wait_ms=round(turn.queue_wait_ms, 2),
            broker_ms=round(turn.broker_ms, 2),
        )

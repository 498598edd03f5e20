"""Reading an account's past, in steps between which more urgent work may go first."""

import time
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryPage, HistoryQuery
from mt5kit.domain.trades import Deal, Order
from mt5kit.terminal.chunks import Chunk, Done, More
from mt5kit.terminal.protocol import HistoryTerminal
from mt5kit.terminal.settling import Settling
from mt5kit.terminal.walk import DAY_S, Clock, Walk

# Rows that a sync reads in one call: half a megabyte of JSON, made and parsed in some 20 ms.
SYNC_ROWS: Final = 1000

Row = TypeVar("Row", Deal, Order)


class HistoryReader:
    """The history of one account at one terminal.

    Args:
        terminal: Where the account is logged in during every step.
        identity: The account.
        settling: Of the terminal; told of every login.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        terminal: HistoryTerminal,
        identity: AccountIdentity,
        settling: Settling,
        clock: Clock = time.monotonic,
    ) -> None:
        self._terminal = terminal
        self._identity = identity
        self._settling = settling
        self._clock = clock

    async def settle(self, token: int) -> More | None:
        """The pause to make; None once what the terminal has of the history is believed.

        Asked before every read: another account may have been in since the last one.
        """
        if self._settling.settled(self._identity):
            return None
        size = await self._terminal.history_size(token, self._identity)
        pause_s = self._settling.saw(self._identity, size)
        return More(pause_s) if pause_s else None

    def deals(self, query: HistoryQuery) -> Walk[Deal]:
        """A walk through the deals."""
        return Walk(self._terminal.deals, self._identity, query, self._clock)

    def orders(self, query: HistoryQuery) -> Walk[Order]:
        """A walk through the finished orders."""
        return Walk(self._terminal.orders, self._identity, query, self._clock)


class PageJob(Generic[Row]):
    """One page of a history, newest first; `deals_page` and `orders_page` make it.

    Args:
        reader: Of the account.
        walk: Through what is asked for.
        limit: Rows of the page.
    """

    def __init__(self, reader: HistoryReader, walk: Walk[Row], limit: int) -> None:
        self._reader = reader
        self._walk: Walk[Row] = walk
        self._limit = limit
        self._rows: list[Row] = []

    async def step(self, token: int) -> Chunk[HistoryPage[Row]]:
        """Hold the terminal for one call or two.

        Raises:
            WrongAccount: The account is not in.
            TerminalUnavailable: The terminal cannot answer.
        """
        wait = await self._reader.settle(token)
        if wait is not None:
            return wait
        if not self._walk.over:
            # One row more than the page: it tells whether there is another page.
            self._rows += await self._walk.rows(token, self._limit + 1 - len(self._rows))
        if len(self._rows) <= self._limit and not self._walk.over:
            return More()
        page = tuple(self._rows[: self._limit])
        return Done(HistoryPage(page, more=len(self._rows) > self._limit))


def deals_page(reader: HistoryReader, query: HistoryQuery) -> PageJob[Deal]:
    """The page of deals that `query` asks for."""
    return PageJob(reader, reader.deals(query), query.limit)


def orders_page(reader: HistoryReader, query: HistoryQuery) -> PageJob[Order]:
    """The page of finished orders that `query` asks for."""
    return PageJob(reader, reader.orders(query), query.limit)


class SyncSink(Protocol):
    """Takes what a sync reads; called while the terminal waits, so it only puts things down."""

    def deals(self, rows: tuple[Deal, ...]) -> None:
        """Take deals, newest first, older than all before them."""

    def orders(self, rows: tuple[Order, ...]) -> None:
        """Take finished orders, likewise."""

    def progress(self, percent: int) -> None:
        """Hear how much of the period is read, from 0 to 100; it never falls."""


class SyncResult(msgspec.Struct, frozen=True):
    """How many rows a sync has read."""

    deals: int
    orders: int


class SyncRun:
    """All deals and finished orders of the last days.

    Args:
        reader: Of the account.
        days: How many.
        now_s: The present, in UTC epoch seconds.
        sink: Gets the rows and the progress.
    """

    def __init__(self, reader: HistoryReader, days: int, now_s: int, sink: SyncSink) -> None:
        # A broker's wall clock is less than a day off, this way or that.
        query = HistoryQuery(now_s - (days + 1) * DAY_S, now_s + DAY_S, "", None, SYNC_ROWS)
        self._reader = reader
        self._sink = sink
        self._deals = reader.deals(query)
        self._orders = reader.orders(query)
        self._read = SyncResult(0, 0)

    async def step(self, token: int) -> Chunk[SyncResult]:
        """Hold the terminal for one call or two; raises as `PageJob.step` does, and as the sink."""
        wait = await self._reader.settle(token)
        if wait is not None:
            return wait
        deals, orders = self._read.deals, self._read.orders
        if not self._deals.over:
            made = await self._deals.rows(token, SYNC_ROWS)
            self._sink.deals(made)
            self._read = SyncResult(deals + len(made), orders)
        else:
            done = await self._orders.rows(token, SYNC_ROWS)
            self._sink.orders(done)
            self._read = SyncResult(deals, orders + len(done))
        self._sink.progress(int(50 * (self._deals.share + self._orders.share)))
        return Done(self._read) if self._deals.over and self._orders.over else More()

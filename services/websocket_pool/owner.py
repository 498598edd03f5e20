"""Polling an account on a stream terminal that this replica leases."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import structlog

from mt5kit.domain.accounts import AccountState
from mt5kit.errors import AccountNotFound, ServiceOverloaded, StaleToken
from mt5kit.state.redis import (
    LiveStore,
    RedisFault,
    StateUnavailable,
    StreamPlacementStore,
)
from mt5kit.telemetry.stream_metrics import StreamMetrics
from mt5kit.terminal.protocol import StreamTerminal
from websocket_pool.channel import Channel
from websocket_pool.close_codes import CloseCode
from websocket_pool.credentials import StoredAccount
from websocket_pool.diff import Status
from websocket_pool.feed import Feed, FeedParts
from websocket_pool.publisher import Publisher
from websocket_pool.source import StreamOver
from websocket_pool.stream import Stream

IDLE_S: Final = 30.0
"""A page that is reloaded comes back within this and finds its stream running."""

RESERVATION_TTL_S: Final = 45.0
"""A dead replica's terminals are free again after this: a few refreshes may fail before."""

REFRESH_S: Final = 3.0
"""A Redis that has lost its data learns within this whose terminal is whose."""

MOVE_AFTER_S: Final = 20.0
"""A terminal that restarts is back within this; one that is not may never be."""

LOOK_AROUND_S: Final = 2.0
"""How often it is asked whether anybody watches, and whether the terminal is worth staying on."""

DRAIN_LOOK_S: Final = 0.5
"""Between two attempts to leave a terminal that is about to end."""

log = structlog.get_logger(__name__)


class Left(Enum):
    """Why an account is not polled here any more, though its stream goes on."""

    HANDED = auto()
    """The terminal is given to another replica."""
    LOST = auto()
    """Another replica has it already."""
    MOVED = auto()
    """The account has another terminal."""
    IDLE = auto()
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Tenure:
    """By what right an account is polled.

    Args:
        terminal: The terminal reserved for the account, leased by this replica.
        token: A token just issued for that lease.
        epoch: Of the line: the same as the token, or an earlier one that is continued.
        current: The token of the lease at this moment; raises TerminalMoved without.
    """

    terminal: StreamTerminal
    token: int
    epoch: int
    current: Callable[[], int]


@dataclass(frozen=True, slots=True)
class OwnerParts:
    """What the owners of a replica share.

    Args:
        instance_id: This replica.
        placement: Which account has which terminal.
        live: Where other replicas read what is streamed here.
        feed: What the feeds share.
        metrics: Counts the accounts.
        others: The terminals but one that are up, wherever they are leased.
        drains: Whether a terminal of ours is about to end.
        looked: Told of each account that is polled, now and then.
        idle_s: Seconds an account is polled when nobody watches it any more.
        move_after_s: Seconds after which an account leaves a terminal that does not answer.
    """

    instance_id: str
    placement: StreamPlacementStore
    live: LiveStore
    feed: FeedParts
    metrics: StreamMetrics
    others: Callable[[str], Sequence[str]]
    drains: Callable[[str], bool]
    looked: Callable[[str], None]
    idle_s: float = IDLE_S
    move_after_s: float = MOVE_AFTER_S


class Owner:
    """Polls one account, makes its messages and publishes them.

    Args:
        account: Whose, as it is stored now.
        tenure: Where, and by what right.
        channel: Where the messages go.
        watched: Whether anybody watches here.
        parts: What owners share.
    """

    def __init__(
        self,
        account: StoredAccount,
        tenure: Tenure,
        channel: Channel,
        watched: Callable[[], bool],
        parts: OwnerParts,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.account_id = account.account_id
        self.terminal_id = tenure.terminal.terminal_id
        self._parts = parts
        self._watched = watched
        self._token = tenure.token
        self._stream = Stream(channel, tenure.epoch, loop)
        self._publisher = Publisher(
            parts.live, self._stream, tenure.token, self.terminal_id, parts.instance_id
        )
        self._feed = Feed(account, self._stream, tenure.terminal, tenure.current, parts.feed)
        self._refresh = asyncio.Event()
        self._leaving: asyncio.Future[Left] = loop.create_future()
        self._log = log.bind(account_id=self.account_id, terminal_id=self.terminal_id)

    @property
    def status(self) -> Status:
        """How the poll does."""
        return self._stream.status

    @property
    def epoch(self) -> int:
        """Of what it tells."""
        return self._stream.epoch

    @property
    def telling(self) -> bool:
        """Whether it may tell more. Once it may not, another may have gone on with its line."""
        return not self._stream.ended

    def reread(self) -> None:
        """Go on with what is stored now, or end."""
        self._feed.reread()

    def refresh(self) -> None:
        """Say again whose terminal it is: Redis may have lost its data."""
        self._refresh.set()

    def leave(self, why: Left) -> None:
        """Have `run` return."""
        if not self._leaving.done():
            self._leaving.set_result(why)

    async def run(self) -> Left:
        """Poll until there is a reason to stop. The line is handed over if it can be.

        Raises:
            StreamOver: It ends for everybody.
            AccountNotFound: The account has been deleted.
        """
        self._parts.metrics.accounts.inc()
        self._log.info("stream_started", epoch=self._stream.epoch, token=self._token)
        try:
            left = await self._until_left()
        finally:
            self._stream.end()
            self._parts.metrics.accounts.dec()
        # A line that nobody watches is forgotten, and of a lost one we know nothing any more.
        handed = left in {Left.HANDED, Left.MOVED} and await self._publisher.hand_over()
        self._log.info("stream_left", why=left.name, handed_over=handed)
        return left

    async def _until_left(self) -> Left:
        work: list[asyncio.Task[Left]] = [
            asyncio.create_task(self._work(each))
            for each in (
                self._feed.run,
                self._feed.heed,
                self._publisher.run,
                self._while_reserved,
                self._while_watched,
                self._while_answered,
                self._while_it_stays,
            )
        ]
        awaited: list[asyncio.Future[Left]] = [*work, self._leaving]
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            done = [task for task in work if task.done()]
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        return self._leaving.result() if self._leaving.done() else done[0].result()

    @staticmethod
    async def _work(work: Callable[[], Any]) -> Left:
        try:
            left: Left = await work()
        except StaleToken:
            return Left.LOST
        return left

    async def _while_reserved(self) -> Left:
        while True:
            try:
                if not await self._parts.placement.refresh(
                    self.account_id, self.terminal_id, RESERVATION_TTL_S
                ):
                    return Left.MOVED
            except (StateUnavailable, RedisFault) as failure:
                self._log.info("reservation_not_refreshed", error=failure.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._refresh.wait()
            self._refresh.clear()

    async def _while_watched(self) -> Left:
        idle_s = self._parts.idle_s
        pause_s = max(0.01, min(LOOK_AROUND_S, idle_s / 10))
        loop = asyncio.get_running_loop()
        last_s = loop.time()
        while loop.time() - last_s <= idle_s:
            await asyncio.sleep(pause_s)
            if self._watched() or await self._watched_elsewhere():
                last_s = loop.time()
        return Left.IDLE

    async def _watched_elsewhere(self) -> bool:
        try:
            return await self._parts.live.followers(self.account_id) > 0
        except (StateUnavailable, RedisFault):
            # Somebody may; they cannot say so now.
            return True

    async def _while_answered(self) -> Left:
        after_s = self._parts.move_after_s
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        while True:
            await asyncio.sleep(min(LOOK_AROUND_S, after_s))
            if self.status.state is not AccountState.TERMINAL_UNAVAILABLE:
                since_s = loop.time()
                self._parts.looked(self.account_id)
            elif self._feed.alike:
                # Elsewhere it would be the same, and one login more.
                since_s = loop.time()
            elif loop.time() - since_s > after_s and await self._reserve_elsewhere():
                return Left.MOVED

    async def _while_it_stays(self) -> Left:
        """Until the terminal drains and another is free.

        That is reserved when the line has been handed over: whoever has it may begin at once.
        """
        while True:
            if self._parts.drains(self.terminal_id) and await self._room_elsewhere():
                return Left.MOVED
            await asyncio.sleep(DRAIN_LOOK_S)

    async def _room_elsewhere(self) -> bool:
        others = self._parts.others(self.terminal_id)
        try:
            occupied = await self._parts.placement.occupants(others)
        except (StateUnavailable, RedisFault) as failure:
            self._log.info("no_other_terminal", error=failure.message)
            return False
        return len(occupied) < len(others)

    async def _reserve_elsewhere(self) -> bool:
        others = self._parts.others(self.terminal_id)
        if not others:
            return False
        try:
            elsewhere = await self._parts.placement.reserve(
                self.account_id, others, RESERVATION_TTL_S
            )
        except ServiceOverloaded as full:
            self._log.info("no_other_terminal", error=full.message)
            return False
        self._log.warning("stream_moves", to=elsewhere)
        return True


async def give_up(account_id: str, token: int, terminal_id: str, parts: OwnerParts) -> None:
    """Forget the line of a stream that has ended for everybody, and free its terminal.

    Args:
        account_id: Whose.
        token: Under which it was polled; 0 if there was none yet, nor a line.
        terminal_id: Where.
        parts: What owners share.
    """
    try:
        if token:
            await parts.live.drop(account_id, token, terminal_id)
        await parts.placement.free(account_id, terminal_id)
    except StaleToken:
        log.info("stream_taken_over", account_id=account_id)
    except (StateUnavailable, RedisFault) as failure:
        log.warning("stream_left_behind", account_id=account_id, error=failure.message)


def ending_of(failure: BaseException) -> StreamOver:
    """What watchers are told of a failure that ends a stream."""
    if isinstance(failure, StreamOver):
        return failure
    if isinstance(failure, AccountNotFound):
        return StreamOver(CloseCode.ENDED, "the account is gone")
    return StreamOver(CloseCode.INTERNAL, "a fault on our side")

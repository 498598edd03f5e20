"""One message to many sockets: who takes it, and what is counted."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from prometheus_client import CollectorRegistry
from tests.hand_socket import HandSocket, until
from tests.session_fakes import RULES, ticket

from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.channel import Channel
from websocket_pool.close_codes import CloseCode
from websocket_pool.messages import Message, Place, encode
from websocket_pool.session import Session


class Room:
    """A channel and its sessions."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = StreamMetrics(self.registry)
        self.channel = Channel("acc", self.metrics)
        self.sockets: list[HandSocket] = []
        self.sessions: list[Session] = []
        self.running: list[asyncio.Task[int]] = []

    async def enter(self, *, wired: bool = True) -> HandSocket:
        socket = HandSocket(wired=wired)
        session = Session(socket, self.channel, ticket(), RULES, self.metrics)
        self.sockets.append(socket)
        self.sessions.append(session)
        self.running.append(asyncio.create_task(session.run(None)))
        await until(lambda: session in self.channel.watchers and bool(socket.taken))
        return socket

    def tell(self, seq: int, seen_ms: int | None = 0) -> None:
        place = Place("acc", 5, seq)
        self.channel.tell(encode("position_update", place, 0, {}, changed_ms=seen_ms))

    def sent(self, kind: str) -> float | None:
        return self.registry.get_sample_value("ws_messages_sent_total", {"type": kind})

    def ages(self, part: str = "count") -> float | None:
        return self.registry.get_sample_value(f"ws_delivery_latency_seconds_{part}")


@asynccontextmanager
async def room(sockets: int) -> AsyncIterator[Room]:
    made = Room()
    try:
        for _ in range(sockets):
            await made.enter()
        yield made
    finally:
        for task in made.running:
            task.cancel()
        for task in made.running:
            with suppress(asyncio.CancelledError):
                await task


class Standby:
    """A `Watcher` that does something when it is told."""

    def __init__(self, act: Callable[[], None], *, takes: bool = True) -> None:
        self.act = act
        self.takes = takes
        self.told = 0

    def deliver(self, message: Message) -> bool:
        del message
        self.told += 1
        self.act()
        return self.takes

    def end(self, code: CloseCode, reason: str) -> None:
        raise AssertionError(f"{code} {reason}")


async def test_who_takes_a_message_is_counted_and_who_has_it_wait_once_later() -> None:
    async with room(4) as one:
        waiting = one.sockets[2]
        waiting.reads.clear()
        one.tell(1)
        assert [len(socket.taken) for socket in one.sockets] == [2, 2, 1, 2]
        assert (one.sent("position_update"), one.ages()) == (3, 3)
        waiting.reads.set()
        await until(lambda: len(waiting.taken) == 2)
        await until(lambda: not one.sessions[2]._outbox.waits)
        assert (one.sent("position_update"), one.ages()) == (4, 4)
        one.tell(2)
        assert (one.sent("position_update"), one.ages()) == (8, 8)


async def test_who_has_ended_is_neither_told_nor_counted() -> None:
    async with room(3) as one:
        one.sessions[0].end(CloseCode.RESTART, "this replica restarts")
        one.tell(1)
        assert [len(socket.taken) for socket in one.sockets] == [1, 2, 2]
        assert one.sent("position_update") == 2


async def test_what_nobody_takes_is_not_counted() -> None:
    async with room(0) as one:
        one.tell(1)
        assert (one.sent("position_update"), one.ages()) == (None, 0)
        one.channel.attach(Standby(lambda: None, takes=False))
        one.tell(2)
        assert (one.sent("position_update"), one.ages()) == (None, 0)


async def test_what_tells_of_no_change_has_no_age() -> None:
    async with room(2) as one:
        one.tell(1, seen_ms=None)
        assert (one.sent("position_update"), one.ages()) == (2, 0)


async def test_an_age_is_that_of_the_last_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read before the first it would be told too small for all the others."""
    now = [1_000]
    monkeypatch.setattr("mt5kit.telemetry.stream_metrics.now_ms", lambda: now[0])

    def pass_time() -> None:
        now[0] += 1_000

    async with room(0) as one:
        for _ in range(3):
            one.channel.attach(Standby(pass_time))
        one.tell(1, seen_ms=500)
        assert (one.ages(), one.ages("sum")) == (3, 3 * 3.5)


async def test_who_leaves_while_it_is_told_disturbs_nobody() -> None:
    async with room(2) as one:
        watchers: list[Standby] = []

        def leave() -> None:
            for watcher in watchers:
                one.channel.detach(watcher)

        watchers += [Standby(leave) for _ in range(2)]
        for watcher in watchers:
            one.channel.attach(watcher)
        one.tell(1)
        one.tell(2)
        assert [watcher.told for watcher in watchers] == [1, 1]
        assert [len(socket.taken) for socket in one.sockets] == [3, 3]
        assert one.sent("position_update") == 2 + 2 + 2


@pytest.mark.parametrize("wired", [True, False])
async def test_everything_that_a_socket_takes_is_counted_once(wired: bool) -> None:
    async with room(0) as one:
        one.channel.deafen("Redis is away")
        socket = await one.enter(wired=wired)
        for said in ('{"type":"ping"}', "{}", '{"type":"ping"}'):
            socket.said.put_nowait(said)
        one.tell(1)
        one.channel.hear_again()
        expected = Counter(connected=1, status=2, pong=2, error=1, position_update=1)
        await until(lambda: len(socket.taken) == expected.total())
        await until(lambda: not one.sessions[0]._outbox.waits)
        assert Counter(kind for kind, _ in socket.told) == expected
        assert {kind: one.sent(kind) for kind in expected} == expected

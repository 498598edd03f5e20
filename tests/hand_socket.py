"""A session on a socket that is moved by hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry
from tests.session_fakes import RULES, HandLine, ticket

from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.messages import Message
from websocket_pool.session import Session, SessionRules, SocketGone
from websocket_pool.wire import Flow


class HandSocket:
    """A client that reads while `reads` is set. A wire takes messages at once, ASGI by `send`."""

    def __init__(self, *, wired: bool) -> None:
        self.wired = wired
        self.reads = asyncio.Event()
        self.reads.set()
        self.said: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.taken: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.gone: int | None = None
        self.looks = 0

    def offer(self, message: Message) -> bool:
        if not self.wired or not self.reads.is_set():
            return False
        self.taken.append(json.loads(message.text))
        return True

    async def writable(self) -> None:
        if self.wired:
            await self.reads.wait()

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        if self.gone is not None:
            raise SocketGone(self.gone)
        self.taken.append(json.loads(message.text))

    def flow(self) -> Flow:
        self.looks += 1
        return Flow(len(self.taken), not self.reads.is_set())

    async def receive(self) -> str | bytes:
        said = await self.said.get()
        if said == "bye":
            raise SocketGone(1001)
        return said

    async def close(self, code: int, reason: str) -> None:
        await self.reads.wait()
        self.closed = code, reason

    def abort(self) -> None:
        self.aborted = True

    @property
    def told(self) -> list[tuple[str, int]]:
        return [(one["type"], one["seq"]) for one in self.taken]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


class Served:
    """A running session."""

    def __init__(self, socket: HandSocket, line: HandLine, rules: SessionRules) -> None:
        self.socket, self.line = socket, line
        self.registry = CollectorRegistry()
        self.session = Session(socket, line, ticket(), rules, StreamMetrics(self.registry))
        self.running: asyncio.Task[int]

    async def ended(self) -> int:
        async with asyncio.timeout(10):
            return await self.running

    def delivered(self) -> float:
        return self.registry.get_sample_value("ws_delivery_latency_seconds_count") or 0.0


@asynccontextmanager
async def served(
    socket: HandSocket,
    line: HandLine | None = None,
    since: tuple[int, int] | None = None,
    lifetime_s: float | None = None,
    **rules: float,
) -> AsyncIterator[Served]:
    one = Served(socket, line or HandLine(), replace(RULES, **rules))  # type: ignore[arg-type]
    one.running = asyncio.create_task(one.session.run(since, lifetime_s=lifetime_s))
    await until(lambda: bool(one.line.watchers))
    tasks = len(asyncio.all_tasks())
    try:
        yield one
    finally:
        one.running.cancel()
        await asyncio.wait([one.running])
        assert len(asyncio.all_tasks()) < tasks
        assert not one.line.watchers

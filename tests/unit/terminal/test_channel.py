"""The channel: one thread, reconnects, bounds; against a hand-written connection."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from mt5kit.backoff import Backoff
from mt5kit.errors import ServiceOverloaded, TerminalTimeout, TerminalUnavailable
from mt5kit.terminal.channel import MOST_WAITING, TIMEOUTS_TO_DROP, Channel


class FakeDoor:
    """Answers with what it is told to; remembers who called."""

    def __init__(self) -> None:
        self.outcome: Callable[[], object] = lambda: b"answer"
        self.threads: set[str] = set()
        self.gone = False
        self.closed = False
        self.refusal: Exception | None = None
        self.limit_s = 0.0
        self.hold: threading.Event | None = None
        self.calls = 0

    def open(self, limit_s: float) -> None:
        self.limit_s = limit_s
        if self.hold is not None:
            self.hold.wait(30)
        if self.refusal is not None:
            raise self.refusal

    def call(self, op: str, token: int, args: tuple[object, ...], timeout_s: float) -> object:
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        return self.outcome()

    def stale(self) -> bool:
        return self.gone

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.gone = True


class Terminal:
    """Makes doors, or refuses."""

    def __init__(self) -> None:
        self.doors: list[FakeDoor] = []
        self.refusal: Exception | None = None
        self.hold: threading.Event | None = None
        self.attempts = 0
        self.changes: list[bool] = []

    def make(self) -> FakeDoor:
        door = FakeDoor()
        door.refusal = self.refusal
        door.hold = self.hold
        self.attempts += 1
        if self.refusal is None:
            self.doors.append(door)
        return door


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
async def channel(terminal: Terminal) -> AsyncIterator[Channel]:
    backoff = Backoff(first_s=0.001, cap_s=0.01)
    channel = Channel("mt5-fake-call", terminal.make, terminal.changes.append, backoff)
    yield channel
    await channel.aclose()


async def call(channel: Channel) -> object:
    return await channel.call("op", 1, (), 5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_all_calls_come_from_one_named_thread(terminal: Terminal, channel: Channel) -> None:
    await asyncio.gather(*(call(channel) for _ in range(20)))
    assert len(terminal.doors) == 1
    assert terminal.doors[0].threads == {"mt5-fake-call_0"}


async def test_a_started_channel_connects_by_itself_and_again(
    terminal: Terminal, channel: Channel
) -> None:
    terminal.refusal = TerminalUnavailable("away")
    channel.start()
    await until(lambda: terminal.attempts > 2)
    # Whatever a stranger on that port provokes, it goes on trying.
    terminal.refusal = ModuleNotFoundError("No module named 'MetaTrader5'")
    seen = terminal.attempts
    await until(lambda: terminal.attempts > seen + 2)
    assert not channel.connected
    terminal.refusal = None
    await until(lambda: channel.connected)
    terminal.doors[0].outcome = fail(TerminalUnavailable("broke", retry_after_s=1))
    with pytest.raises(TerminalUnavailable):
        await call(channel)
    await until(lambda: len(terminal.doors) == 2)
    assert terminal.changes == [True, False, True]
    assert terminal.doors[0].closed


async def test_a_connection_that_ended_unnoticed_is_not_written_to(
    terminal: Terminal, channel: Channel
) -> None:
    await call(channel)
    terminal.doors[0].gone = True
    assert await call(channel) == b"answer"
    assert len(terminal.doors) == 2


async def test_timeouts_in_a_row_end_the_connection_and_one_does_not(
    terminal: Terminal, channel: Channel
) -> None:
    await call(channel)
    late = fail(TerminalTimeout("late", retry_after_s=1))
    for _ in range(TIMEOUTS_TO_DROP - 1):
        terminal.doors[0].outcome = late
        with pytest.raises(TerminalTimeout):
            await call(channel)
        terminal.doors[0].outcome = lambda: b"answer"
        await call(channel)
    assert len(terminal.doors) == 1
    terminal.doors[0].outcome = late
    for _ in range(TIMEOUTS_TO_DROP):
        with pytest.raises(TerminalTimeout):
            await call(channel)
    await call(channel)
    assert len(terminal.doors) == 2


async def test_waiting_calls_are_bounded(terminal: Terminal, channel: Channel) -> None:
    await call(channel)
    release = threading.Event()
    terminal.doors[0].outcome = lambda: release.wait(30)
    waiting = [asyncio.create_task(call(channel)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceOverloaded) as refused:
        await call(channel)
    assert refused.value.retry_after_s
    release.set()
    await asyncio.gather(*waiting)


async def test_a_call_whose_time_is_over_in_the_queue_is_not_sent(
    terminal: Terminal, channel: Channel
) -> None:
    await call(channel)
    release = threading.Event()
    sent: list[int] = []

    def hold() -> object:
        sent.append(1)
        return release.wait(30)

    terminal.doors[0].outcome = hold
    first = asyncio.create_task(call(channel))
    await until(lambda: bool(sent))
    late = asyncio.create_task(channel.call("op", 1, (), 0.0))
    await asyncio.sleep(0.01)
    release.set()
    await first
    with pytest.raises(TerminalTimeout):
        await late
    assert len(sent) == 1


async def test_connecting_for_a_call_keeps_to_its_deadline(
    terminal: Terminal, channel: Channel
) -> None:
    await channel.call("op", 1, (), 0.5)
    assert 0 < terminal.doors[0].limit_s <= 0.5


async def test_a_call_does_not_wait_for_the_channel_to_connect(
    terminal: Terminal, channel: Channel
) -> None:
    terminal.hold = threading.Event()
    channel.start()
    await until(lambda: terminal.attempts == 1)
    with pytest.raises(TerminalTimeout):
        await channel.call("op", 1, (), 0.01)
    assert not channel.connected
    terminal.hold.set()
    assert await call(channel) == b"answer"
    assert terminal.doors[0].calls == 1


async def test_a_closed_channel_refuses(channel: Channel) -> None:
    await channel.aclose()
    with pytest.raises(TerminalUnavailable):
        await call(channel)


def fail(failure: Exception) -> Callable[[], object]:
    def raise_it() -> object:
        raise failure

    return raise_it

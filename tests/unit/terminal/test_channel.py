"""The channel: turns, reconnects, bounds; against a hand-written connection."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable

import pytest

import mt5kit.terminal.channel
from mt5kit.backoff import Backoff
from mt5kit.errors import ServiceOverloaded, TerminalTimeout, TerminalUnavailable
from mt5kit.terminal.channel import MOST_WAITING, TIMEOUTS_TO_DROP, Channel


class FakeDoor:
    """Answers with what it is told to, at once or when let go; remembers who called."""

    address = "127.0.0.1"

    def __init__(self) -> None:
        self.outcome: Callable[[], object] = lambda: b"answer"
        self.holding = False
        self.opened_in: set[str] = set()
        self.asked: list[str] = []
        self.gone = False
        self.goes_when_attached = False
        self.aborted = threading.Event()
        self.refusal: Exception | None = None
        self.limit_s = 0.0
        self.hold: threading.Event | None = None
        self.lost: Callable[[], None] = lambda: None
        self._reply: asyncio.Future[object] | None = None

    def open(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.opened_in.add(threading.current_thread().name)
        if self.hold is not None:
            self.hold.wait(30)
        if self.refusal is not None:
            raise self.refusal

    async def attach(self, lost: Callable[[], None]) -> None:
        self.lost = lost
        if self.goes_when_attached:
            self.hang_up()

    def ask(
        self, op: str, token: int, args: tuple[object, ...], timeout_s: float
    ) -> asyncio.Future[object]:
        assert self._reply is None or self._reply.done(), "one at a time"
        self.asked.append(op)
        self._reply = asyncio.get_running_loop().create_future()
        if not self.holding:
            self.let_go()
        return self._reply

    def let_go(self) -> None:
        """Answer the call that is held."""
        assert self._reply is not None
        try:
            self._reply.set_result(self.outcome())
        except TerminalUnavailable as failure:
            self._reply.set_exception(failure)

    def hang_up(self) -> None:
        """As the terminal does."""
        self.gone = True
        self.lost()

    def stale(self) -> bool:
        return self.gone

    def abort(self) -> None:
        self.gone = True
        self.aborted.set()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(TerminalUnavailable("cut", retry_after_s=1))


class Terminal:
    """Makes doors, or refuses."""

    def __init__(self) -> None:
        self.doors: list[FakeDoor] = []
        self.refusal: Exception | None = None
        self.hold: threading.Event | None = None
        self.goes_when_attached = False
        self.attempts = 0
        self.changes: list[bool] = []

    def make(self) -> FakeDoor:
        door = FakeDoor()
        door.refusal = self.refusal
        door.hold = self.hold
        door.goes_when_attached = self.goes_when_attached
        self.attempts += 1
        if self.refusal is None:
            self.doors.append(door)
        return door


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


class CountingBackoff(Backoff):
    """Short, and knows how often it was asked."""

    def __init__(self) -> None:
        super().__init__(first_s=0.001, cap_s=0.01)
        self.asked = 0

    def next_s(self) -> float:
        self.asked += 1
        return super().next_s()


@pytest.fixture
def backoff() -> CountingBackoff:
    return CountingBackoff()


@pytest.fixture
async def channel(terminal: Terminal, backoff: CountingBackoff) -> AsyncIterator[Channel]:
    channel = Channel("mt5-fake-call", terminal.make, terminal.changes.append, backoff)
    yield channel
    await channel.aclose()


async def call(channel: Channel, op: str = "op") -> object:
    return await channel.call(op, 1, (), 5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def threads() -> set[str]:
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if name.startswith("mt5-fake")}


async def test_a_thread_with_a_name_opens_a_connection_and_is_gone(
    terminal: Terminal, channel: Channel
) -> None:
    await asyncio.gather(*(call(channel) for _ in range(20)))
    assert len(terminal.doors) == 1
    assert terminal.doors[0].opened_in == {"mt5-fake-call_0"}
    await until(lambda: not threads())


async def test_calls_are_made_one_after_another_as_they_came(
    terminal: Terminal, channel: Channel
) -> None:
    await call(channel)
    door = terminal.doors[0]
    door.asked.clear()
    door.holding = True
    waiting = [asyncio.create_task(call(channel, f"op-{number}")) for number in range(5)]
    for number in range(5):
        await until(lambda number=number: len(door.asked) == number + 1)  # type: ignore[misc]
        door.let_go()
    await asyncio.gather(*waiting)
    assert door.asked == [f"op-{number}" for number in range(5)]


async def test_a_call_keeps_its_turn_when_its_caller_has_gone(
    terminal: Terminal, channel: Channel
) -> None:
    await call(channel)
    door = terminal.doors[0]
    door.holding = True
    left = asyncio.create_task(call(channel, "left"))
    await until(lambda: door.asked[-1] == "left")
    left.cancel()
    after = asyncio.create_task(call(channel, "after"))
    await asyncio.sleep(0.01)
    assert door.asked[-1] == "left"
    door.let_go()
    await until(lambda: door.asked[-1] == "after")
    door.let_go()
    assert await after == b"answer"


async def test_connecting_goes_on_when_the_caller_has_gone(
    terminal: Terminal, channel: Channel
) -> None:
    terminal.hold = threading.Event()
    left = asyncio.create_task(call(channel, "left"))
    await until(lambda: terminal.attempts == 1)
    left.cancel()
    after = asyncio.create_task(call(channel, "after"))
    terminal.hold.set()
    assert await after == b"answer"
    assert terminal.attempts == 1
    assert terminal.doors[0].asked == ["left", "after"]


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
    await until(lambda: len(terminal.doors) == 2 and channel.connected)
    assert terminal.changes == [True, False, True]
    assert terminal.doors[0].aborted.is_set()


async def test_a_connection_that_ended_unnoticed_is_not_written_to(
    terminal: Terminal, channel: Channel
) -> None:
    await call(channel)
    terminal.doors[0].gone = True
    assert await call(channel) == b"answer"
    assert len(terminal.doors) == 2


async def test_a_connection_that_ends_is_remade_before_anybody_calls(
    terminal: Terminal, channel: Channel
) -> None:
    channel.start()
    await until(lambda: channel.connected)
    terminal.doors[0].hang_up()
    assert not channel.connected
    assert terminal.changes == [True, False]
    await until(lambda: channel.connected)
    assert terminal.changes == [True, False, True]
    # The old one has nothing more to say.
    terminal.doors[0].lost()
    assert channel.connected


async def test_who_hangs_up_as_soon_as_connected_is_not_hammered(
    terminal: Terminal, channel: Channel, backoff: CountingBackoff
) -> None:
    channel.start()
    for number in range(1, 6):
        await until(lambda number=number: channel.connected and terminal.attempts == number)  # type: ignore[misc]
        terminal.doors[-1].hang_up()
    await until(lambda: terminal.attempts == 6)
    assert backoff.asked == 5


async def test_a_connection_that_ended_while_it_was_made_is_none(
    terminal: Terminal, channel: Channel, backoff: CountingBackoff
) -> None:
    terminal.goes_when_attached = True
    with pytest.raises(TerminalUnavailable):
        await call(channel)
    assert not channel.connected
    channel.start()
    await until(lambda: terminal.attempts > 3)
    assert backoff.asked >= 2
    assert not any(door.asked for door in terminal.doors)
    terminal.goes_when_attached = False
    await until(lambda: channel.connected)


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
    terminal.doors[0].holding = True
    waiting = [asyncio.create_task(call(channel)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceOverloaded) as refused:
        await call(channel)
    assert refused.value.retry_after_s
    terminal.doors[0].holding = False
    terminal.doors[0].let_go()
    await asyncio.gather(*waiting)


async def test_a_call_whose_time_is_over_in_the_queue_is_not_sent(
    terminal: Terminal, channel: Channel
) -> None:
    await call(channel)
    door = terminal.doors[0]
    door.holding = True
    first = asyncio.create_task(call(channel, "first"))
    await until(lambda: door.asked[-1] == "first")
    late = asyncio.create_task(channel.call("late", 1, (), 0.0))
    await asyncio.sleep(0.01)
    door.let_go()
    await first
    with pytest.raises(TerminalTimeout):
        await late
    assert door.asked == ["op", "first"]


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
    assert len(terminal.doors[0].asked) == 1


async def test_connecting_that_does_not_end_is_cut(
    terminal: Terminal, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mt5kit.terminal.channel, "OPEN_MARGIN_S", 0.0)
    terminal.hold = threading.Event()
    with pytest.raises(TerminalTimeout):
        await channel.call("op", 1, (), 0.01)
    await until(terminal.doors[0].aborted.is_set)
    terminal.hold.set()


async def test_closing_ends_what_is_under_way_and_what_waits(
    terminal: Terminal, channel: Channel
) -> None:
    channel.start()
    await until(lambda: channel.connected)
    door = terminal.doors[0]
    door.holding = True
    calls = [asyncio.create_task(call(channel, f"op-{number}")) for number in range(3)]
    await until(lambda: bool(door.asked))
    await channel.aclose()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [TerminalUnavailable] * 3
    assert door.asked == ["op-0"]
    assert terminal.changes == [True, False]
    assert terminal.attempts == 1


async def test_nobody_misses_the_failure_of_a_call_whose_caller_has_gone(
    terminal: Terminal, channel: Channel
) -> None:
    missed: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: missed.append(context))
    terminal.hold = threading.Event()
    left = asyncio.create_task(call(channel))
    await until(lambda: terminal.attempts == 1)
    left.cancel()
    terminal.doors[0].refusal = TerminalUnavailable("away", retry_after_s=1)
    terminal.hold.set()
    await call(channel)
    gc.collect()
    assert not missed


@pytest.mark.parametrize("by", ["a call", "the channel"])
async def test_closing_cuts_a_connection_that_is_being_made(
    terminal: Terminal, channel: Channel, by: str
) -> None:
    terminal.hold = threading.Event()
    if by == "the channel":
        channel.start()
        await until(lambda: terminal.attempts == 1)
    calling = asyncio.create_task(call(channel))
    await until(lambda: terminal.attempts == 1)
    closing = asyncio.create_task(channel.aclose())
    await until(terminal.doors[0].aborted.is_set)
    terminal.hold.set()
    await closing
    await asyncio.wait([calling])
    assert not channel.connected
    await until(lambda: not threads())


async def test_a_closed_channel_refuses(channel: Channel) -> None:
    await channel.aclose()
    with pytest.raises(TerminalUnavailable):
        await call(channel)


def fail(failure: Exception) -> Callable[[], object]:
    def raise_it() -> object:
        raise failure

    return raise_it

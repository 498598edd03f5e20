"""What a supervisor does with faults whose terminal or broker does not do its part."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from terminal_sim.broker.messages import LENGTH_BYTES, Done, Inject, Look, Request, Seen
from terminal_sim.faults.injection import read
from terminal_sim.faults.kinds import Latency
from terminal_sim.process.wire import Acted, Begin, Command, End, Ended, decode_command
from terminal_sim.supervisor.broker_link import BrokerDown, BrokerLink
from terminal_sim.supervisor.fault_book import FaultBook, StillHeld, TooManyFaults
from terminal_sim.supervisor.fleet import Fleet
from terminal_sim.supervisor.member import Member
from terminal_sim.supervisor.outbox import Outbox

LARGE = Latency(ms=1, functions=("copy_ticks_range",) * 32)


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = Pipe()
    os.set_blocking(ours.fileno(), False)
    with closing(ours), closing(theirs):
        yield ours, theirs


async def arriving(theirs: Connection, count: int) -> list[Command]:
    found: list[Command] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            while theirs.poll():
                found.append(decode_command(theirs.recv_bytes()))
            await asyncio.sleep(0)
    return found


async def test_commands_a_pipe_does_not_take_come_later_whole_and_in_order(
    pipe: tuple[Connection, Connection],
) -> None:
    ours, theirs = pipe
    outbox = Outbox(ours)
    commands: list[Command] = [Begin(number, LARGE) for number in range(400)]
    commands += [End(number) for number in range(400)]
    for command in commands:
        outbox.put(command)
    assert await arriving(theirs, len(commands)) == commands
    outbox.put(End(1))
    assert await arriving(theirs, 1) == [End(1)]
    outbox.close()


async def test_a_process_that_reads_nothing_is_given_no_faults_but_their_ends(
    pipe: tuple[Connection, Connection],
) -> None:
    ours, theirs = pipe
    outbox = Outbox(ours)
    begun: list[int] = []

    def fill() -> None:
        for number in range(5000):
            outbox.put(Begin(number, LARGE))
            begun.append(number)

    with pytest.raises(BlockingIOError):
        fill()
    for number in begun:
        outbox.put(End(number))
    arrived = await arriving(theirs, 2 * len(begun))
    assert arrived[len(begun) :] == [End(number) for number in begun]
    outbox.close()


async def test_what_is_on_fits_into_the_pipe_of_a_terminal_that_is_started(
    pipe: tuple[Connection, Connection],
) -> None:
    ours, theirs = pipe
    outbox = Outbox(ours)
    commands: list[Command] = [Begin(number, LARGE) for number in range(64)]
    for command in commands:
        outbox.put(command)
    there = []
    while theirs.poll():
        there.append(decode_command(theirs.recv_bytes()))
    assert there == commands
    outbox.close()


async def test_a_process_that_has_ended_is_told_nothing(
    pipe: tuple[Connection, Connection],
) -> None:
    ours, theirs = pipe
    outbox = Outbox(ours)
    theirs.close()
    outbox.put(End(1))
    outbox.put(End(2))
    outbox.close()


class Deaf:
    """A terminal that reads none of its commands."""

    def __init__(self) -> None:
        self.told: list[Command] = []
        self.full = False
        self.on_start: Callable[[], list[Command]] = list

    def tell(self, command: Command) -> bool:
        if self.full and isinstance(command, Begin):
            raise BlockingIOError
        self.told.append(command)
        return True


class Unwilling:
    """A link that cannot send some faults."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.on_connected: Callable[[], Any] = list

    async def ask_at_once(self, make: Callable[[int, None], Inject], _kind: type[Done]) -> Done:
        fault_id = make(1, None).fault_id
        if fault_id == 1:
            raise OverflowError("too large")
        self.told.append(fault_id)
        return Done(1)

    ask = ask_at_once


def book_of(terminal: Deaf, link: Unwilling) -> FaultBook:
    fleet = SimpleNamespace(
        terminals={1: terminal}, links={"A": link}, brokers={"A": None}, elsewhere={}
    )
    return FaultBook(cast("Fleet", fleet), None)


async def test_a_fault_that_cannot_be_told_keeps_no_other_from_its_broker() -> None:
    link = Unwilling()
    book = book_of(Deaf(), link)
    (bad,) = book.inject(read({"name": "requote"}))
    await asyncio.wait_for(bad.applied.wait(), 30)
    assert bad.error == "OverflowError: too large"
    assert not book.active()
    (good,) = book.inject(read({"name": "requote"}))
    await asyncio.wait_for(good.applied.wait(), 30)
    bad.error = None
    book._entries = {bad.id: bad, good.id: good}  # as if it had been told before
    await link.on_connected()
    assert link.told == [good.id, good.id]
    assert book.active() == [good]


async def read_frame(reader: asyncio.StreamReader) -> Request:
    size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    request: Request = msgspec.msgpack.decode(await reader.readexactly(size), type=Request)
    return request


async def test_a_broker_that_answers_late_is_still_heard() -> None:
    asked, answered = asyncio.Queue[Request](), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_frame(reader)
        asked.put_nowait(request)
        await answered.wait()
        body = msgspec.msgpack.encode(Done(request.id))
        writer.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    member = SimpleNamespace(name="broker", listening=asyncio.Event())
    member.listening.set()
    address = server.sockets[0].getsockname()[:2]
    link = BrokerLink(cast("Member", member), address, None, timeout_s=0.0)
    book = book_of(Deaf(), cast("Any", link))
    keeping = asyncio.create_task(link.keep())
    async with asyncio.timeout(30):
        await link.connected.wait()
        (entry,) = book.inject(read({"name": "requote"}))
        assert isinstance(await asked.get(), Inject)
        # The others' patience is over by now.
        with pytest.raises(BrokerDown, match="in time"):
            await link.ask(lambda number, key: Look(number, 1, key), Seen)
        assert not entry.applied.is_set()
        answered.set()
        await entry.applied.wait()
        await link.stop()
        await keeping
    server.close()
    assert entry.error is None


async def test_what_a_terminal_cannot_take_is_not_listed() -> None:
    terminal = Deaf()
    terminal.full = True
    book = book_of(terminal, Unwilling())
    with pytest.raises(BlockingIOError):
        book.inject(read({"name": "autotrading_off"}))
    assert not book.active()


async def test_so_many_faults_are_on_at_one_terminal_and_no_more() -> None:
    terminal = Deaf()
    book = book_of(terminal, Unwilling())
    for _ in range(64):
        book.inject(read({"name": "autotrading_off"}))
    with pytest.raises(TooManyFaults, match="64 faults are on at terminal 1"):
        book.inject(read({"name": "autotrading_off"}))
    assert len(terminal.told) == len(book.active()) == 64
    mending = asyncio.create_task(book.mend(1))
    while len(terminal.told) == 64:
        await asyncio.sleep(0)
    cast("Any", terminal).on_message(Ended(1))
    assert await mending
    book.inject(read({"name": "autotrading_off"}))


async def test_a_freeze_is_on_until_it_lets_its_terminal_go() -> None:
    terminal = Deaf()
    book = book_of(terminal, Unwilling())
    (brief, long, past) = (
        book.inject(read({"name": "freeze", **how}))[0]
        for how in ({"hold_s": 0.05}, {"hold_s": 600}, {"hold_s": 600, "times": 9, "seconds": 1e-6})
    )
    for entry in (brief, long, past):
        cast("Any", terminal).on_message(Acted(entry.id))
    async with asyncio.timeout(30):
        while len(book._entries) == 3:  # not active(), which would forget it itself
            await asyncio.sleep(0)
    assert book.active() == [long, past]
    with pytest.raises(StillHeld, match=r"Terminal 1 is held for .* `terminal-sim restart 1`"):
        await book.mend_all()
    assert book.active() == [long, past]
    assert terminal.told[-2:] == [End(long.id), End(past.id)]
    assert terminal.on_start() == []  # nobody is held again after a restart
    assert book.active() == []


async def test_with_a_process_end_the_faults_it_was_still_to_end() -> None:
    terminal = Deaf()
    book = book_of(terminal, Unwilling())
    book.inject(read({"name": "autotrading_off"}))
    mending = asyncio.create_task(book.mend_all())
    while terminal.told[-1] != End(1):
        await asyncio.sleep(0)
    assert not mending.done()
    assert terminal.on_start() == []
    assert await mending == 1
    assert not book._ending  # nothing is kept for ever

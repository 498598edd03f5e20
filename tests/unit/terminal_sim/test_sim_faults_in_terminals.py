"""The terminal's side of faults: streams, threads of mischief, commands, without any process."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terminal_sim.faults.kinds import (
    AccountSwitched,
    Freeze,
    Latency,
    MemoryGrowth,
    TerminalFault,
    UnstableLink,
)
from terminal_sim.process.wire import Acted, Applied, Begin, End, Message, decode, encode
from terminal_sim.terminal.commands import Commands, NotSwitched, Upstream
from terminal_sim.terminal.mischief import Freezing, Growing
from terminal_sim.terminal.streams import Weather, WeatheredStream
from terminal_sim.terminal.tally import Tally


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def serving() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def running(name: str) -> bool:
    return any(thread.name == name for thread in threading.enumerate())


class Acts:
    def __init__(self) -> None:
        self.ids: list[int] = []

    def __call__(self, fault_id: int = 0) -> None:
        self.ids.append(fault_id)


@pytest.fixture
def acts() -> Acts:
    return Acts()


@pytest.fixture
def weather(acts: Acts) -> Weather:
    return Weather(acts, "0:1")


@pytest.fixture
def link(weather: Weather) -> Iterator[tuple[WeatheredStream, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with far, closing(WeatheredStream(near, weather)) as stream:
        far.settimeout(30)
        yield stream, far


def test_in_fair_weather_bytes_arrive(link: tuple[WeatheredStream, socket.socket]) -> None:
    stream, far = link
    stream.write(b"hello")
    assert far.recv(10) == b"hello"


def test_a_cut_sends_a_part_and_resets(
    link: tuple[WeatheredStream, socket.socket], weather: Weather, acts: Acts
) -> None:
    stream, far = link
    weather.begin(7, UnstableLink(loss=1.0, times=1))
    with pytest.raises(EOFError, match="cut on purpose"):
        stream.write(b"0123456789")
    assert far.recv(10) in {b"01234", b""}
    with pytest.raises(ConnectionResetError):
        far.recv(10)
    assert acts.ids == [7]
    assert stream.closed
    assert weather.next_write() == (0.0, None)


def test_silence_lasts_for_the_connection(
    link: tuple[WeatheredStream, socket.socket], weather: Weather
) -> None:
    stream, far = link
    weather.begin(1, UnstableLink(loss=1.0, how="silence"))
    stream.write(b"lost")
    weather.end(1)
    stream.write(b"lost too")
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    assert not stream.closed


def test_delays_come_before_the_bytes(
    link: tuple[WeatheredStream, socket.socket], weather: Weather, acts: Acts
) -> None:
    stream, far = link
    weather.begin(1, UnstableLink(delay_ms=60, times=1))
    began = time.monotonic()
    stream.write(b"late")
    assert far.recv(4) == b"late"
    assert time.monotonic() - began >= 0.06
    assert acts.ids == [1]


def test_a_delay_ends_with_its_fault(
    link: tuple[WeatheredStream, socket.socket], weather: Weather
) -> None:
    stream, far = link
    weather.begin(1, UnstableLink(delay_ms=3_600_000))
    writing = threading.Thread(target=stream.write, args=(b"late",), daemon=True)
    writing.start()
    # Whether it has begun to wait by now or not: a fault that has ended delays nothing.
    deadline = time.monotonic() + 30
    while not weather.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    weather.end(1)
    assert far.recv(4) == b"late"
    writing.join(30)


@settings(max_examples=40)
@given(
    delay=st.floats(0, 1000), jitter=st.floats(0, 1000), loss=st.floats(0, 1), seed=st.text("ab")
)
def test_chances_repeat_and_delays_stay_in_their_bounds(
    delay: float, jitter: float, loss: float, seed: str
) -> None:
    fault = UnstableLink(delay_ms=delay, jitter_ms=jitter, loss=loss)
    seen = []
    for _ in range(2):
        weather = Weather(Acts(), seed)
        weather.begin(1, fault)
        seen.append([weather.next_write() for _ in range(30)])
    assert seen[0] == seen[1]
    low, high = max(delay - jitter, 0) / 1000, (delay + jitter) / 1000
    assert all(low - 1e-9 <= wait <= high + 1e-9 for wait, _ in seen[0])
    assert all(how in {None, "cut"} for _, how in seen[0])
    if loss in {0.0, 1.0}:
        assert {how for _, how in seen[0]} == {"cut" if loss else None}


def test_a_freeze_stops_every_thread_for_its_time(acts: Acts) -> None:
    gaps: list[float] = []
    stop = threading.Event()

    def watch() -> None:
        last = time.monotonic()
        while not stop.is_set():
            time.sleep(0.001)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    watching = threading.Thread(target=watch)
    watching.start()
    Freezing(Freeze(hold_s=0.3, times=2), acts).start("freeze", serving())
    until(lambda: sum(gap >= 0.3 for gap in gaps) == 2)
    stop.set()
    watching.join()
    assert len(acts.ids) == 2


def resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a line of /proc
        return int(file.read().split()[1]) * 4096 / 1024**2


def test_memory_grows_to_its_limit_and_comes_back(acts: Acts) -> None:
    before = resident_mb()
    growing = Growing(MemoryGrowth(mb_per_s=1000, limit_mb=64), acts)
    growing.start("growth", serving())
    until(lambda: resident_mb() > before + 60)
    assert resident_mb() < before + 80
    growing.mend()
    until(lambda: not running("growth"))
    assert resident_mb() < before + 20
    assert acts.ids == [0]


@pytest.mark.long
def test_memory_comes_back_when_its_time_is_over(acts: Acts) -> None:
    before = resident_mb()
    Growing(MemoryGrowth(mb_per_s=1000, limit_mb=64, seconds=3), acts).start("growth", serving())
    until(lambda: resident_mb() > before + 60)
    until(lambda: not running("growth"))
    assert resident_mb() < before + 20


class Patient:
    """A terminal that remembers what was done to it."""

    def __init__(self) -> None:
        self.begun: dict[int, TerminalFault] = {}
        self.switched: list[AccountSwitched] = []
        self.may_switch = serving()

    def inject(self, fault_id: int, fault: TerminalFault) -> None:
        if isinstance(fault, Latency) and fault.ms == 13:
            raise ValueError("unlucky")
        self.begun[fault_id] = fault

    def mend(self, fault_id: int | None) -> None:
        if fault_id is None:
            self.begun.clear()
        else:
            self.begun.pop(fault_id, None)

    def switch_account(self, fault: AccountSwitched) -> None:
        assert self.may_switch.wait(30)
        if fault.login == 13:
            raise ValueError("unlucky")
        if fault.login == 14:
            raise NotSwitched("It is not known.")
        self.switched.append(fault)


class Supervised:
    def __init__(self, ours: Connection, theirs: Connection) -> None:
        upstream = Upstream(theirs)
        self.pipe, self.theirs = ours, theirs
        self.patient = Patient()
        self.tally = Tally(upstream.send)
        self.weather = Weather(self.tally, "0:1")
        self.commands = Commands(theirs, upstream, self.patient, self.weather, self.tally)
        self.commands.serving.set()

    def tell(self, command: Begin | End) -> None:
        self.pipe.send_bytes(encode(command))

    def heard(self) -> Message:
        assert self.pipe.poll(30)
        message: Message = decode(self.pipe.recv_bytes())
        return message


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    ours, theirs = Pipe()
    with closing(theirs):
        with closing(ours):
            yield Supervised(ours, theirs)
        until(lambda: not running("commands"))


def test_what_is_in_the_pipe_at_the_start_is_done_before_anything_else(
    supervised: Supervised,
) -> None:
    supervised.tell(Begin(1, Latency(ms=5)))
    supervised.tell(Begin(2, UnstableLink(loss=1.0)))
    supervised.commands.start()
    assert supervised.patient.begun == {1: Latency(ms=5)}
    assert supervised.weather.next_write()[1] == "cut"
    assert [supervised.heard(), supervised.heard()] == [Applied(1), Applied(2)]


def test_a_fault_that_fails_is_told_and_the_next_is_heard(supervised: Supervised) -> None:
    supervised.commands.start()
    supervised.tell(Begin(1, Latency(ms=13)))
    assert supervised.heard() == Applied(1, "ValueError: unlucky")
    supervised.pipe.send_bytes(b"{}")
    supervised.tell(Begin(2, Latency(ms=1)))
    assert supervised.heard() == Applied(2)
    supervised.tell(End(2))
    until(lambda: not supervised.patient.begun)


def test_half_a_command_is_the_last_and_is_complained_about(
    supervised: Supervised, caplog: pytest.LogCaptureFixture
) -> None:
    os.set_blocking(supervised.theirs.fileno(), False)
    supervised.commands.start()
    os.write(supervised.pipe.fileno(), (100).to_bytes(4, "big") + b"half")
    until(lambda: not running("commands"))
    assert "the terminal has to be restarted" in caplog.text


def test_an_account_is_switched_in_its_own_thread_and_counted(supervised: Supervised) -> None:
    supervised.commands.start()
    supervised.tell(Begin(3, AccountSwitched(login=9)))
    assert supervised.heard() == Applied(3)
    assert supervised.heard() == Acted(3)
    assert [each.login for each in supervised.patient.switched] == [9]


def test_a_switch_is_confirmed_when_it_has_been_made(supervised: Supervised) -> None:
    supervised.patient.may_switch.clear()
    supervised.commands.start()
    supervised.tell(Begin(3, AccountSwitched(login=9)))
    supervised.tell(Begin(4, Latency(ms=1)))
    assert supervised.heard() == Applied(4)
    assert running("fault-3")
    assert not supervised.patient.switched
    supervised.patient.may_switch.set()
    assert supervised.heard() == Applied(3)
    assert [each.login for each in supervised.patient.switched] == [9]


def test_a_switch_that_fails_is_told(supervised: Supervised) -> None:
    supervised.commands.start()
    supervised.tell(Begin(3, AccountSwitched(login=13)))
    assert supervised.heard() == Applied(3, "ValueError: unlucky")


def test_a_switch_that_cannot_be_is_told_in_a_sentence(supervised: Supervised) -> None:
    supervised.commands.start()
    supervised.tell(Begin(3, AccountSwitched(login=14)))
    assert supervised.heard() == Applied(3, "It is not known.")


def test_a_freeze_is_answered_before_it_begins_and_ends_when_mended(
    supervised: Supervised,
) -> None:
    supervised.commands.start()
    supervised.tell(Begin(4, Freeze(hold_s=0.05, times=None)))
    assert supervised.heard() == Applied(4)
    acted = supervised.heard()
    assert isinstance(acted, Acted)
    assert (acted.fault_id, acted.count >= 1) == (4, True)
    supervised.tell(End())
    until(lambda: not running("fault-4"))


def test_a_freeze_waits_until_the_terminal_serves(supervised: Supervised) -> None:
    supervised.commands.serving.clear()
    supervised.tell(Begin(4, Freeze(hold_s=0.05)))
    supervised.commands.start()
    assert supervised.heard() == Applied(4)
    assert running("fault-4")
    assert not supervised.pipe.poll(0.2)
    supervised.commands.serving.set()
    assert supervised.heard() == Acted(4)


def test_limited_faults_are_told_at_once_and_others_later() -> None:
    told: list[Acted] = []
    tally = Tally(told.append)
    tally.begin(1, Latency(ms=1, times=3))
    tally.begin(2, Latency(ms=1))
    tally(2)
    tally(2)
    assert not told
    tally(1)
    assert sorted(told, key=lambda each: each.fault_id) == [Acted(1), Acted(2, 2)]


def test_what_a_full_pipe_refuses_is_told_later(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Acted] = []
    full = [True]

    def send(message: Acted) -> None:
        if full[0]:
            raise BlockingIOError
        told.append(message)

    tally = Tally(send)
    tally.begin(1, Latency(ms=1, times=5))
    tally(1)
    tally(1)
    assert "told later" in caplog.text
    full[0] = False
    tally.flush()
    assert told == [Acted(1, 2)]

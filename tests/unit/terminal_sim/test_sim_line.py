"""A terminal's line, against brokers that follow a script in a process of their own.

They cannot be threads: whoever waits for a broker holds the interpreter.
"""

import logging
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import pairwise

import msgspec
import pytest

from terminal_sim.broker.messages import (
    LENGTH_BYTES,
    MAX_MESSAGE,
    Answer,
    Beat,
    Changed,
    Deals,
    History,
    Login,
    Message,
    Refused,
    Request,
    Shifted,
    Snapshot,
    Trade,
    Traded,
    Welcome,
)
from terminal_sim.broker.values import (
    Change,
    Deal,
    Position,
    Profile,
    Terms,
    TradeRequest,
    TradeResult,
)
from terminal_sim.module.arguments import Refusal
from terminal_sim.terminal import line as line_module
from terminal_sim.terminal import session as session_module
from terminal_sim.terminal.account import Asked
from terminal_sim.terminal.channel import LineDown, LineTimeout
from terminal_sim.terminal.line import LoginRefused, SocketBrokers, SocketLine
from terminal_sim.terminal.session import Terminal, Timing
from terminal_sim.testing import ManualClock, MemoryBoard

# Newer Pythons warn of forking beside threads; the child touches nothing they could hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

LONG_S = 20.0
TERMS = Terms("S", "Company", 5, "UTC")
HELD = Position(8, 8, "EURUSD", 1, 0.1, 1.1, 1, 1, 0.0, 0.0, 0, 0, "", 0.0, 11.0)
DEAL = Deal(3, 2, 8, "EURUSD", 0, 0, 5, 0.1, 1.1, 0.0, 0.0, 7.5, 0.0, 0, 0, "")


class Talk:
    """The broker's end, in the child."""

    def __init__(self, listener: socket.socket, control: socket.socket) -> None:
        self._listener = listener
        self._control = control
        self._sock: socket.socket | None = None

    def accept(self) -> "Talk":
        self._sock = self._listener.accept()[0]
        return self

    def read(self) -> Request:
        assert self._sock
        size = int.from_bytes(self._exactly(LENGTH_BYTES), "big")
        request: Request = msgspec.msgpack.decode(self._exactly(size), type=Request)
        return request

    def tell(self, *messages: Message) -> None:
        """Send messages at once, so that they are read at once."""
        bodies = [msgspec.msgpack.encode(message) for message in messages]
        self.raw(b"".join(len(body).to_bytes(LENGTH_BYTES, "big") + body for body in bodies))

    def raw(self, content: bytes) -> None:
        assert self._sock
        self._sock.sendall(content)

    def close(self) -> None:
        assert self._sock
        self._sock.close()

    def stop_listening(self) -> None:
        self._listener.close()

    def report(self, word: str) -> None:
        self._control.sendall(word.encode() + b"\n")

    def pause(self) -> None:
        assert self._control.recv(1)

    def admit(self) -> Login:
        """Let the first login in and wait until the terminal knows."""
        login = self.accept().welcome()
        self.pause()
        return login

    def welcome(
        self, version: int = 0, *, balance: float = 100.0, held: tuple[Position, ...] = ()
    ) -> Login:
        login = self.read()
        assert isinstance(login, Login)
        account = Snapshot(Profile(7, "N", "USD", 100, "hedging"), held, (), balance, 0.0, version)
        self.tell(Welcome(login.id, False, TERMS, account))
        return login

    def _exactly(self, size: int) -> bytes:
        assert self._sock
        got = b""
        while len(got) < size:
            chunk = self._sock.recv(size - len(got))
            assert chunk, "the terminal has ended the connection"
            got += chunk
        return got


class Broker:
    """The child, for the test."""

    def __init__(self, address: tuple[str, int], control: socket.socket) -> None:
        self.address = address
        self._control = control
        self._words = control.makefile()
        self._lines: list[SocketLine] = []

    def line(self) -> SocketLine:
        line = SocketBrokers({"S": self.address}, "t").line("S")
        assert isinstance(line, SocketLine)
        self._lines.append(line)
        return line

    def opened(self) -> SocketLine:
        line = self.line()
        line.open(7, "secret", LONG_S)
        self.go()
        return line

    def close(self) -> None:
        for line in self._lines:
            line.close()
        self._words.close()

    def go(self) -> None:
        self._control.sendall(b".")

    def heard(self) -> str:
        return self._words.readline().strip()


@contextmanager
def scripted(script: Callable[[Talk], None]) -> Iterator[Broker]:
    listener = socket.create_server(("127.0.0.1", 0))
    ours, theirs = socket.socketpair()
    ours.settimeout(LONG_S)
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        ours.close()
        try:
            talk = Talk(listener, theirs)
            script(talk)
            theirs.recv(1)
        except BaseException:  # noqa: BLE001 - of the child; pytest is the parent's
            traceback.print_exc()
        finally:
            os._exit(0)
    address = listener.getsockname()
    listener.close()
    theirs.close()
    try:
        with ours:
            broker = Broker(address, ours)
            with closing(broker):
                yield broker
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def until(condition: Callable[[], bool], step: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + LONG_S
    step()
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
        step()


def tended(line: SocketLine, *, cut: bool = False) -> None:
    line.tend(cut=cut)
    line.dial()
    line.tend(cut=cut)


def buy(number: int) -> Trade:
    return Trade(number, TradeRequest(action=1, symbol="EURUSD", volume=0.1))


def test_what_a_trade_changed_is_known_with_its_answer() -> None:
    def script(talk: Talk) -> None:
        login = talk.admit()
        talk.report(f"{login.login} {login.password} {login.terminal}")
        trade = talk.read()
        assert isinstance(trade, Trade)
        talk.tell(Beat(), Changed(Change(positions=(HELD,), deals=(DEAL,)), 1))
        talk.tell(Traded(trade.id, TradeResult(10009, "Request executed", volume=0.1)))

    with scripted(script) as broker:
        line = broker.opened()
        assert broker.heard() == "7 secret t"
        assert (line.up, line.investor, line.terms, line.state.balance) == (True, False, TERMS, 100)
        answer = line.request(buy, LONG_S)
        assert isinstance(answer, Traded)
        assert answer.result.retcode == 10009
        assert line.state.positions == {8: HELD}
        assert line.state.balance == 107.5


def test_a_late_answer_is_no_answer_to_the_next_request() -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        first = talk.read()
        talk.pause()
        talk.tell(Traded(first.id, TradeResult(10009, "late")))
        second = talk.read()
        talk.tell(Traded(second.id, TradeResult(10013, "second")))

    with scripted(script) as broker:
        line = broker.opened()
        with pytest.raises(LineTimeout):
            line.request(buy, 0.01)
        assert line.up
        broker.go()
        answer = line.request(buy, LONG_S)
        assert isinstance(answer, Traded)
        assert answer.result.comment == "second"


def test_a_refused_login_says_so_and_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    def script(talk: Talk) -> None:
        talk.tell(Refused(talk.accept().read().id, "unauthorized", "no"))

    caplog.set_level(logging.DEBUG)
    with scripted(script) as broker:
        line = broker.line()
        with pytest.raises(LoginRefused):
            line.open(7, "hush-hush", LONG_S)
        assert (line.up, line.refused) == (False, True)
    assert caplog.text
    assert "hush" not in caplog.text


def test_a_login_waits_for_a_broker_until_its_time_is_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    line = SocketLine(address, "t")
    with pytest.raises(LineTimeout):
        line.open(7, "secret", 0.3)

    def script(talk: Talk) -> None:
        talk.accept().close()
        talk.accept().welcome()

    with scripted(script) as broker:
        assert broker.opened().up


def test_a_silent_broker_times_a_login_out() -> None:
    def script(talk: Talk) -> None:
        talk.accept().read()

    with scripted(script) as broker:
        line = broker.line()
        with pytest.raises(LineTimeout):
            line.open(7, "secret", 0.1)
        assert not line.up


def test_a_lost_broker_is_found_again_with_another_state() -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.close()
        login = talk.accept().welcome(version=4, balance=50)
        talk.report(login.password)

    with scripted(script) as broker:
        line = broker.opened()
        before = line.state
        until(lambda: not line.up, line.pump)
        assert line.state is before
        with pytest.raises(LineDown):
            line.request(buy, LONG_S)
        until(lambda: line.up, partial(tended, line))
        assert broker.heard() == "secret"
        assert (line.state.balance, line.state.version) == (50, 4)


def test_rows_after_a_reconnect_are_of_the_state_told_then() -> None:
    other = msgspec.structs.replace(HELD, ticket=9, symbol="GBPUSD")

    def script(talk: Talk) -> None:
        talk.accept().welcome(3, held=(HELD,))
        talk.pause()
        talk.close()
        # Another state, by chance of the same version.
        talk.accept().welcome(3, held=(other,))

    with scripted(script) as broker:
        brokers, clock = SocketBrokers({"S": broker.address}, "t"), ManualClock(1_795_005_296_789)
        terminal = Terminal(brokers, clock, Timing(login_seconds=0), MemoryBoard())
        terminal.login(7, "secret", None, 20_000)
        session = terminal.session
        assert session
        (row,) = session.positions.rows(session.state, session.value())
        assert (row.ticket, row.symbol) == (8, "EURUSD")
        before = session.state
        broker.go()

        def followed() -> None:
            terminal.tend_line()
            session.refresh()

        until(lambda: session.state is not before, followed)
        (row,) = session.positions.rows(session.state, session.value())
        assert (row.ticket, row.symbol) == (9, "GBPUSD")
        session.line.close()


def test_a_broker_lost_in_a_request_is_down_not_late() -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.read()
        talk.close()

    with scripted(script) as broker:
        line = broker.opened()
        with pytest.raises(LineDown):
            line.request(buy, LONG_S)
        assert not line.up


def test_a_broker_silent_in_a_request_is_down_before_the_request_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.read()
        talk.report("asked")
        talk.pause()

    with scripted(script) as broker:
        line = broker.opened()
        monkeypatch.setattr(line_module, "SILENCE_S", 0.2)
        # A request that times out first raises LineTimeout.
        with pytest.raises(LineDown, match="silent"):
            line.request(buy, LONG_S)
        assert not line.up
        assert broker.heard() == "asked"
        broker.go()


def test_history_that_was_answered_before_a_change_is_asked_for_again() -> None:
    later = msgspec.structs.replace(DEAL, ticket=4)

    def script(talk: Talk) -> None:
        talk.accept().welcome()
        # The change comes right behind the answer, and both are read in one go.
        talk.tell(Deals(talk.read().id, (DEAL,)), Changed(Change(deals=(later,)), 1))
        talk.tell(Deals(talk.read().id, (DEAL, later)))
        talk.report("asked twice")

    with scripted(script) as broker:
        brokers, clock = SocketBrokers({"S": broker.address}, "t"), ManualClock(1_795_005_296_789)
        terminal = Terminal(brokers, clock, Timing(login_seconds=0), MemoryBoard())
        terminal.login(7, "secret", None, 20_000)
        assert terminal.session
        line = terminal.session.line
        asked = Asked(first_s=0, last_s=10)
        assert terminal.session.deals(asked) == (DEAL,)
        until(lambda: line.state.version == 1, line.pump)
        assert terminal.session.deals(asked) == (DEAL, later)
        assert terminal.session.deals(asked) == (DEAL, later)
        assert broker.heard() == "asked twice"
        line.close()


def test_a_broker_that_does_not_let_the_account_in_again_ends_the_line() -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.close()
        talk.tell(Refused(talk.accept().read().id, "unauthorized", "no"))

    with scripted(script) as broker:
        line = broker.opened()
        until(lambda: line.refused, partial(tended, line))
        assert not line.up


def test_a_silent_broker_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.accept().welcome(balance=1)

    with scripted(script) as broker:
        line = broker.opened()
        line.tend(cut=False)
        assert line.up
        monkeypatch.setattr(line_module, "SILENCE_S", -1.0)
        line.tend(cut=False)
        assert not line.up
        monkeypatch.undo()
        until(lambda: line.up, partial(tended, line))
        assert line.state.balance == 1


def test_what_came_while_nobody_listened_is_heard_before_silence_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.pause()
        talk.tell(Beat())
        talk.report("beaten")

    monkeypatch.setattr(line_module, "SILENCE_S", 0.2)
    with scripted(script) as broker:
        line = broker.opened()
        time.sleep(0.3)
        broker.go()
        assert broker.heard() == "beaten"
        line.tend(cut=False)
        assert line.up


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x00\x00\x03\xc1\xc1\xc1",
        (MAX_MESSAGE + 1).to_bytes(LENGTH_BYTES, "big"),
        b"\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_nonsense_ends_the_connection_only(nonsense: bytes) -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.raw(nonsense)
        talk.accept().welcome(balance=1)

    with scripted(script) as broker:
        line = broker.opened()
        until(lambda: not line.up, line.pump)
        until(lambda: line.up, partial(tended, line))
        assert line.state.balance == 1


@pytest.mark.parametrize(
    "changed",
    [Changed(Change(positions=(HELD,)), 5), Changed(Change(gone=(99,)), 1)],
    ids=["a version is missing", "it holds no such position"],
)
def test_a_replica_that_has_missed_a_change_is_fetched_anew(changed: Changed) -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.tell(changed)
        talk.accept().welcome(version=5, balance=2)

    with scripted(script) as broker:
        line = broker.opened()
        until(lambda: not line.up, line.pump)
        until(lambda: line.up, partial(tended, line))
        assert (line.state.version, line.state.balance) == (5, 2)


def test_a_line_that_is_cut_stays_down_until_it_is_mended() -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.accept().welcome(balance=3)

    with scripted(script) as broker:
        line = broker.opened()
        tended(line, cut=True)
        assert not line.up
        tended(line, cut=True)
        assert line._dialled is None
        until(lambda: line.up, partial(tended, line))
        assert line.state.balance == 3


def test_a_connection_that_comes_while_the_line_is_cut_is_not_taken_up() -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.close()
        talk.accept()
        talk.accept().welcome(balance=3)

    with scripted(script) as broker:
        line = broker.opened()
        until(lambda: not line.up, line.pump)
        line.dial()
        assert line._dialled is not None
        line.tend(cut=True)
        assert not line.up
        assert line._channel is None
        until(lambda: line.up, partial(tended, line))
        assert line.state.balance == 3


def test_a_login_is_announced_anew_when_the_broker_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(talk: Talk) -> None:
        talk.accept().read()
        talk.accept().welcome()

    monkeypatch.setattr(session_module, "_SOON_S", 0.1)
    board = MemoryBoard()
    with scripted(script) as broker:
        brokers, clock = SocketBrokers({"S": broker.address}, "t"), ManualClock(1_795_005_296_789)
        terminal = Terminal(brokers, clock, Timing(login_seconds=0), board)
        terminal.login(7, "secret", None, 20_000)
        assert terminal.session
        assert terminal.session.login == board.logins[-1] == 7
        assert clock.at_ms in board.untils
        assert clock.at_ms + 19_900 in board.untils
        terminal.session.line.close()


class HeldTime:
    """Time that passes only while the interpreter is held, as the terminal's modules ask for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        for module in (line_module, session_module):
            monkeypatch.setattr(module, "time", self)
            monkeypatch.setattr(module, "hold_interpreter", self.hold)

    def monotonic(self) -> float:
        return self.now

    def hold(self, seconds: float, then: Callable[[], object] = tuple) -> None:
        self.now += max(seconds, 0.0)
        then()


def test_a_login_where_nobody_listens_takes_its_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        brokers = SocketBrokers({"S": free.getsockname()}, "t")
    terminal = Terminal(brokers, ManualClock(0), Timing(login_seconds=0), MemoryBoard())
    held = HeldTime(monkeypatch)
    with pytest.raises(Refusal) as caught:
        terminal.login(7, "secret", None, 300)
    assert caught.value.error == (-10005, "IPC timeout")
    assert held.now == pytest.approx(0.3)


def test_a_closed_line_stays_closed() -> None:
    def script(talk: Talk) -> None:
        talk.admit()

    with scripted(script) as broker:
        line = broker.opened()
        line.close()
        line.tend(cut=False)
        line.dial()
        assert line._dialled is None
        assert not line.up


def test_a_shifted_clock_arrives() -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        talk.tell(Shifted(((1000, 3_600_000),)))

    with scripted(script) as broker:
        line = broker.opened()
        until(lambda: bool(line.terms.shifts), line.pump)
        assert line.terms.shifts == ((1000, 3_600_000),)


def test_a_long_answer_comes_whole_in_pieces() -> None:
    rows = tuple(msgspec.structs.replace(DEAL, ticket=n) for n in range(20_000))

    def script(talk: Talk) -> None:
        talk.admit()
        asked = talk.read()
        assert isinstance(asked, History)
        body = msgspec.msgpack.encode(Deals(asked.id, rows))
        content = len(body).to_bytes(LENGTH_BYTES, "big") + body
        for at in range(0, len(content), 100_003):
            talk.raw(content[at : at + 100_003])

    with scripted(script) as broker:
        answer: Answer = broker.opened().request(lambda n: History(n, "deals"), LONG_S)
        assert isinstance(answer, Deals)
        assert answer.rows == rows


def test_waiting_for_an_answer_runs_no_other_thread_and_does_not_spin() -> None:
    def script(talk: Talk) -> None:
        talk.admit()
        trade = talk.read()
        time.sleep(0.3)
        talk.tell(Traded(trade.id, TradeResult(10009, "")))

    beats: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.is_set():
            beats.append(time.monotonic())

    with scripted(script) as broker:
        line = broker.opened()
        thread = threading.Thread(target=beat)
        thread.start()
        try:
            until(lambda: len(beats) > 100)
            used = time.thread_time()
            line.request(buy, LONG_S)
            used = time.thread_time() - used
        finally:
            stop.set()
            thread.join()
    assert used < 0.1
    assert max(b - a for a, b in pairwise(beats)) >= 0.25

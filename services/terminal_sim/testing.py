"""Doubles and a process fixture for tests of the simulator and of what talks to it."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Self

import msgspec

from terminal_sim.broker.house import House, TooMuch
from terminal_sim.broker.messages import (
    Answer,
    Checked,
    Deals,
    History,
    Orders,
    Refused,
    Request,
    Trade,
    Traded,
)
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import Terms
from terminal_sim.catalogue import catalogue
from terminal_sim.market.clocks import Clock
from terminal_sim.scenario.model import Scenario
from terminal_sim.terminal.channel import LineDown, LineTimeout
from terminal_sim.terminal.line import Line, LoginRefused

# A cold start imports numpy and a web framework; a busy machine may take far longer than usual.
_START_S = 60.0
_STOP_S = 15.0


class ManualClock:
    """A clock that moves when told to.

    Args:
        now_ms: UTC epoch milliseconds.
    """

    def __init__(self, now_ms: int) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        """Return the instant last set."""
        return self.at_ms


class MemoryBoard:
    """A board that remembers every post.

    Attributes:
        untils: What was posted by ``login_until``.
        logins: What was posted by ``logged_in``.
    """

    def __init__(self) -> None:
        self.untils: list[int] = []
        self.logins: list[int] = []

    def login_until(self, until_ms: int) -> None:
        """Remember until when a login may take."""
        self.untils.append(until_ms)

    def logged_in(self, login: int) -> None:
        """Remember which account is logged in."""
        self.logins.append(login)


class DirectLine:
    """A line to a house in the same process; see :class:`terminal_sim.terminal.line.Line`.

    Args:
        house: Whose accounts are logged in.
        clock: The present of the house.
    """

    state: AccountState
    terms: Terms

    def __init__(self, house: House, clock: Clock) -> None:
        self.up = False
        self.refused = False
        self.investor = False
        self._house = house
        self._clock = clock
        self._login, self._seen = 0, -1
        self._ids = count(1)

    def open(self, login: int, password: str, timeout_s: float) -> None:  # noqa: ARG002 - nothing is waited for
        """Log in.

        Raises:
            LoginRefused: Wrong credentials.
        """
        self._advance()
        admitted = self._house.login(login, password)
        if admitted is None:
            raise LoginRefused
        self._login, self.investor = login, admitted.investor
        self.up = True
        self.pump()

    def request(self, make: Callable[[int], Request], timeout_s: float) -> Answer:  # noqa: ARG002 - likewise
        """Have the house answer.

        Raises:
            LineDown: The line is held down.
            LineTimeout: The house keeps its answer to itself.
        """
        if not self.up:
            raise LineDown("the line is held down")
        self.pump()
        message = make(next(self._ids))
        if isinstance(message, History):
            try:
                return self._history(message)
            except TooMuch as error:
                return Refused(message.id, "invalid", str(error))
        if not isinstance(message, Trade):
            return Refused(0, "invalid", "a terminal does not ask for that")
        if message.check:
            checked = self._house.check(self._login, message.request, investor=self.investor)
            return Checked(message.id, checked)
        reason = catalogue().constants["DEAL_REASON_EXPERT"]
        outcome = self._house.trade(
            self._login, message.request, reason=reason, investor=self.investor
        )
        self.pump()
        result = self._house.answer(self._login, outcome.result)
        if result is None:
            raise LineTimeout
        return Traded(message.id, result)

    def pump(self) -> None:
        """Let everything happen that is due."""
        if not self.up:
            return
        self._advance()
        state = self._house.state(self._login)
        if state is None:
            raise LineDown("the account is gone")
        if self._seen != state.version:
            self._seen, self.state = state.version, copied(state)
        self.terms = self._house.terms

    def tend(self, *, cut: bool) -> None:
        """Hold the line down or put it up again; the account stays as it was seen last."""
        self.up = not cut
        self.pump()

    def dial(self) -> None:
        """Do nothing: :meth:`tend` puts the line up."""

    def close(self) -> None:
        """Log out."""
        self.up = False

    def _advance(self) -> None:
        for _ in self._house.advance(self._clock.now_ms()):
            pass

    def _history(self, asked: History) -> Deals | Orders:
        span = {"first_s": asked.first_s, "last_s": asked.last_s}
        chosen = {"order": asked.order, "position": asked.position}
        if asked.kind == "deals":
            deals = self._house.history(self._login, "deals", **span, **chosen)
            return Deals(asked.id, deals)
        return Orders(asked.id, self._house.history(self._login, "orders", **span, **chosen))


class DirectBrokers:
    """Houses in the same process, for tests and for whoever embeds the simulator.

    Args:
        houses: By the names of their servers.
        clock: The present.
    """

    def __init__(self, houses: Mapping[str, House], clock: Clock) -> None:
        self.houses = dict(houses)
        self.names = tuple(houses)
        self._clock = clock

    @classmethod
    def of(cls, scenario: Scenario, clock: Clock) -> Self:
        """Build a house for every server of a scenario; it begins at the clock's present."""
        names = (server.name for server in scenario.servers)
        return cls({name: House(scenario, name, clock) for name in names}, clock)

    def line(self, server: str) -> Line | None:
        """Return a line that is yet to be opened; None: no such server."""
        house = self.houses.get(server)
        return DirectLine(house, self._clock) if house else None


def copied(state: AccountState) -> AccountState:
    """Return a state of its own with the same content."""
    return AccountState(
        state.profile,
        positions=tuple(state.positions.values()),
        orders=tuple(state.orders.values()),
        balance=state.balance,
        credit=state.credit,
        version=state.version,
    )


class Address(msgspec.Struct, frozen=True):
    """Where a terminal listens."""

    n: int
    host: str
    port: int


class BrokerAddress(msgspec.Struct, frozen=True):
    """Where the broker of a server listens."""

    server: str
    host: str
    port: int


class Ready(msgspec.Struct, frozen=True):
    """A ready file: what is listening where."""

    control_url: str
    pid: int
    terminals: tuple[Address, ...]
    brokers: tuple[BrokerAddress, ...] = ()


@contextmanager
def running(*arguments: str) -> Iterator[Ready]:
    """Run a simulator of its own on free ports while the block lasts.

    Args:
        arguments: For ``serve``; ports and the ready file are added.

    Raises:
        RuntimeError: It ended or did not become ready.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        ports = ("--port-base", "0", "--control-port", "0", "--ready-file", str(ready))
        command = (sys.executable, "-m", "terminal_sim", "serve", *ports, *arguments)
        with (Path(folder) / "log").open("w+b") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own program
            try:
                _await(ready, process, log.name)
                yield msgspec.json.decode(ready.read_bytes(), type=Ready)
            finally:
                _end(process)


def _await(ready: Path, process: "subprocess.Popen[bytes]", log: str) -> None:
    deadline = time.monotonic() + _START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(Path(log).read_text(encoding="utf-8", errors="replace"))
        time.sleep(0.01)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""A terminal's line to a broker: one login, a replica of its account, reconnection."""

import logging
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Protocol

import msgspec

from terminal_sim.broker.messages import (
    Answer,
    Changed,
    Login,
    Refused,
    Request,
    Shifted,
    Snapshot,
    Welcome,
)
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import Terms
from terminal_sim.terminal.channel import Address, Channel, LineDown, LineTimeout
from terminal_sim.terminal.frozen_sleep import hold_interpreter

_LOG = logging.getLogger("terminal_sim.line")

SILENCE_S = 5.0
"""Five beats missed: the broker, or the way to it, is gone."""
# A connection is taken up, or not, within this time; the keeper alone waits for it.
_DIAL_S = 2.0
# The first attempt to reconnect comes at once; then each waits twice as long as the one before.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 4.0
# A login that finds nobody listening looks again after this time until its own has passed.
_LOOK_AGAIN_S = 0.2


class LoginRefused(Exception):
    """The broker does not accept the credentials."""


class Line(Protocol):
    """The line of one login.

    Everything but :meth:`dial` is called under the lock of the terminal.

    Attributes:
        up: The broker is there and the account is the present one.
        refused: The broker did not let the account in again; the line is of no more use.
        state: The account, as of the last word of the broker; another object after a reconnect.
        terms: Of the server.
        investor: Logged in with the read-only password.
    """

    up: bool
    refused: bool
    state: AccountState
    terms: Terms
    investor: bool

    def open(self, login: int, password: str, timeout_s: float) -> None:
        """Log in, holding the interpreter meanwhile.

        Raises:
            LoginRefused: Wrong credentials, or the broker refuses logins.
            LineTimeout: No answer in time, or nobody there to answer.
        """
        ...

    def request(self, make: Callable[[int], Request], timeout_s: float) -> Answer:
        """Send what ``make`` makes of an id and wait for its answer, holding the interpreter.

        Raises:
            LineDown: The broker is not there, or was lost meanwhile.
            LineTimeout: No answer in time.
        """
        ...

    def pump(self) -> None:
        """Take over what the broker has told; never waits."""
        ...

    def tend(self, *, cut: bool) -> None:
        """Notice a silent broker, take up a connection that was dialled; never waits.

        Args:
            cut: Hold the line down.
        """
        ...

    def dial(self) -> None:
        """Connect again if it is time to; may take a while, so not under the lock."""
        ...

    def close(self) -> None:
        """Log out."""
        ...


class Brokers(Protocol):
    """Where lines come from.

    Attributes:
        names: The servers; the first is the one a login without a server means at first.
    """

    names: tuple[str, ...]

    def line(self, server: str) -> Line | None:
        """Return a line that is yet to be opened; None: no such server."""
        ...


class SocketBrokers:
    """Brokers that are reached over TCP.

    Args:
        addresses: Host and port of each server's broker.
        terminal: Name of this terminal, which it tells the brokers.
    """

    def __init__(self, addresses: Mapping[str, Address], terminal: str) -> None:
        self.names = tuple(addresses)
        self._addresses = dict(addresses)
        self._terminal = terminal

    def line(self, server: str) -> Line | None:
        """Return a line that is yet to be opened; None: no such server."""
        address = self._addresses.get(server)
        return SocketLine(address, self._terminal) if address else None


class SocketLine:
    """A line over TCP; see :class:`Line`.

    Args:
        address: Of the broker.
        terminal: Name of this terminal.
    """

    state: AccountState
    terms: Terms

    def __init__(self, address: Address, terminal: str) -> None:
        self.up = False
        self.refused = False
        self.investor = False
        self._address = address
        self._terminal = terminal
        self._credentials = 0, ""
        self._ids = count(1)
        self._channel: Channel | None = None
        self._login_id = 0
        self._awaited: tuple[int, Answer | None] = 0, None
        self._dialled: Channel | None = None
        self._closed = self._cut = False
        self._next_dial, self._wait_s = 0.0, 0.0

    def open(self, login: int, password: str, timeout_s: float) -> None:
        """Log in; see :class:`Line`."""
        deadline = time.monotonic() + timeout_s
        self._credentials = login, password
        while True:
            try:
                self._greet(Channel.dial(self._address, deadline - time.monotonic()), deadline)
                self._await_welcome(deadline)
            except LineDown:
                self._drop("no answer to the login")
            if self.up:
                return
            if self.refused:
                raise LoginRefused
            left = deadline - time.monotonic()
            if left <= 0:
                self.close()
                raise LineTimeout
            hold_interpreter(min(left, _LOOK_AGAIN_S))

    def request(self, make: Callable[[int], Request], timeout_s: float) -> Answer:
        """Send a request and wait for its answer; see :class:`Line`."""
        deadline = time.monotonic() + timeout_s
        self.pump()
        if not self.up or self._channel is None:
            raise LineDown("the broker is not there")
        number = next(self._ids)
        self._awaited = number, None
        try:
            self._channel.send(make(number), deadline)
        except LineDown as lost:
            self._drop(str(lost))
            raise
        while True:
            self.pump()
            answer = self._awaited[1]
            if answer is not None:
                return answer
            if self._channel is None:
                raise LineDown("the broker was lost before it answered")
            # The interpreter is held, so the keeper cannot notice a silence.
            silent_at = self._channel.heard + SILENCE_S
            if not self._channel.wait(min(deadline, silent_at)):
                if silent_at > deadline:
                    raise LineTimeout
                self._drop("is silent")
                raise LineDown("the broker is silent")

    def pump(self) -> None:
        """Take over what the broker has told; see :class:`Line`."""
        if self._channel is None:
            return
        try:
            for message in self._channel.read():
                self._take(message)
                if self._channel is None:
                    return
        except LineDown as lost:
            self._drop(str(lost))

    def tend(self, *, cut: bool) -> None:
        """Notice a silent broker, take up a connection; see :class:`Line`."""
        self._cut = cut
        if cut:
            self._drop("it is cut off")
            self._wait_s = self._next_dial = 0.0
        self.pump()
        if self._channel and time.monotonic() - self._channel.heard > SILENCE_S:
            self._drop("the broker is silent")
        fresh, self._dialled = self._dialled, None
        if fresh is None:
            return
        if cut or self._closed or self._channel:
            fresh.close()
            return
        try:
            self._greet(fresh, time.monotonic())
        except LineDown as lost:
            self._drop(str(lost))

    def dial(self) -> None:
        """Connect again if it is time to; see :class:`Line`."""
        idle = self._closed or self._cut or self.refused or self._channel or self._dialled
        if idle or time.monotonic() < self._next_dial:
            return
        try:
            self._dialled = Channel.dial(self._address, _DIAL_S)
        except LineDown:
            self._postpone()
        # Closed meanwhile, by a thread that could not know of this connection.
        if self._closed and self._dialled:
            self._dialled.close()

    def close(self) -> None:
        """Log out."""
        self._closed = True
        self.up = False
        for channel in (self._channel, self._dialled):
            if channel:
                channel.close()
        self._channel = None

    def _greet(self, channel: Channel, deadline: float) -> None:
        """Ask to be let in over a new connection."""
        self._channel = channel
        self._login_id = next(self._ids)
        login, password = self._credentials
        channel.send(Login(self._login_id, login, password, self._terminal), deadline)

    def _await_welcome(self, deadline: float) -> None:
        while self._channel and not self.up and not self.refused:
            if not self._channel.wait(deadline):
                raise LineDown("no answer in time")
            self.pump()

    def _take(self, message: Answer) -> None:
        if isinstance(message, Changed):
            self._apply(message)
        elif isinstance(message, Shifted):
            self.terms = msgspec.structs.replace(self.terms, shifts=message.shifts)
        elif isinstance(message, Welcome):
            self.state, self.terms = restored(message.account), message.terms
            self.investor = message.investor
            self.up, self._wait_s = True, 0.0
        elif isinstance(message, Refused) and message.id == self._login_id:
            _LOG.warning("login of %d refused: %s", self._credentials[0], message.text)
            self.refused = True
            self.close()
        elif self._awaited == (getattr(message, "id", None), None):
            self._awaited = self._awaited[0], message

    def _apply(self, message: Changed) -> None:
        """Take a change over; a replica that has missed one is fetched anew."""
        try:
            self.state.apply(message.change)
        except KeyError:
            self._drop("a change does not fit the account's state")
            return
        if self.state.version != message.version:
            self._drop(f"version {message.version} was told, this is {self.state.version}")

    def _drop(self, why: str) -> None:
        if self._channel is None:
            return
        if self.up:
            _LOG.warning("the line of %d is down: %s", self._credentials[0], why)
        self._channel.close()
        self._channel = None
        self.up = False
        self._postpone()

    def _postpone(self) -> None:
        self._next_dial = time.monotonic() + self._wait_s
        self._wait_s = min(max(2 * self._wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)


def restored(snapshot: Snapshot) -> AccountState:
    """Return the state a broker has told as a whole."""
    return AccountState(
        snapshot.profile,
        positions=snapshot.positions,
        orders=snapshot.orders,
        balance=snapshot.balance,
        credit=snapshot.credit,
        version=snapshot.version,
    )

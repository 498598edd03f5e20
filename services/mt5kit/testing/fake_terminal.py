"""A stream terminal without MetaTrader: looks are set by the test, faults at will."""

import asyncio
from typing import Final

import msgspec

from mt5kit.domain.accounts import AccountIdentity, AccountInfo
from mt5kit.domain.instants import now_ms
from mt5kit.domain.snapshots import Snapshot, TerminalStatus
from mt5kit.domain.trades import Deal, Order, Position
from mt5kit.errors import (
    LoginRefused,
    Mt5SwarmError,
    PollSuperseded,
    StaleToken,
    TerminalUnavailable,
    WrongAccount,
)
from mt5kit.terminal.answers import Look, SignedIn
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.protocol import LOGIN_DEADLINE_S, POLL_TIMEOUT_S

_NUMBERS: Final = {int: 0, float: 0.0, bool: False, str: ""}


def make_account(identity: AccountIdentity, balance: float = 1000.0) -> AccountInfo:
    """An account without open positions."""
    fields = {name: _NUMBERS[kind] for name, kind in AccountInfo.__annotations__.items()}
    fields |= {"login": identity.login, "server": identity.server, "currency": "USD"}
    fields |= {"balance": balance, "equity": balance, "margin_free": balance}
    return msgspec.convert(fields, AccountInfo)


def make_position(ticket: int, profit: float = 0.0, symbol: str = "EURUSD") -> Position:
    """A position of 0.1 lots, opened at the ticket's second of the epoch."""
    fields = {name: _NUMBERS.get(kind) for name, kind in Position.__annotations__.items()}
    fields |= {"ticket": ticket, "identifier": ticket, "symbol": symbol, "profit": profit}
    fields |= {"volume": 0.1, "price_open": 1.1, "time": ticket, "time_msc": ticket * 1000}
    return msgspec.convert(fields, Position)


def make_order(ticket: int, price: float = 1.0, symbol: str = "EURUSD") -> Order:
    """A pending order of 0.1 lots."""
    fields = {name: _NUMBERS.get(kind) for name, kind in Order.__annotations__.items()}
    fields |= {"ticket": ticket, "symbol": symbol, "price_open": price}
    fields |= {"volume_initial": 0.1, "volume_current": 0.1}
    return msgspec.convert(fields, Order)


def make_deal(ticket: int, time_msc: int, symbol: str = "EURUSD") -> Deal:
    """A deal of 0.1 lots."""
    fields = {name: _NUMBERS.get(kind) for name, kind in Deal.__annotations__.items()}
    fields |= {"ticket": ticket, "symbol": symbol, "volume": 0.1}
    fields |= {"time": time_msc // 1000, "time_msc": time_msc}
    return msgspec.convert(fields, Deal)


def make_snapshot(identity: AccountIdentity, *positions: Position) -> Snapshot:
    """A look at an account that holds these positions, taken now."""
    return Snapshot(make_account(identity), positions, (), TerminalStatus(True, True), now_ms())


class FakeStreamTerminal:
    """Implements `StreamTerminal`.

    Args:
        terminal_id: Its name.
        passwords: The accounts the broker knows, and their passwords.

    `answers_as` makes a login end in another account than the one asked for.
    """

    def __init__(self, terminal_id: str, passwords: dict[AccountIdentity, str]) -> None:
        self.terminal_id = terminal_id
        self.passwords = passwords
        self.answers_as: dict[AccountIdentity, AccountIdentity] = {}
        self.down = False
        self.fault: Mt5SwarmError | None = None
        self.sign_ins: list[AccountIdentity] = []
        self.polls = 0
        self.most_polls = 0
        self._looks: dict[AccountIdentity, Snapshot] = {}
        self._account: AccountIdentity | None = None
        self._token = 0
        self._version = 0
        self._generation = 0
        self._changed = asyncio.Condition()

    async def show(self, snapshot: Snapshot) -> None:
        """Let an account look like this from now on."""
        async with self._changed:
            self._looks[snapshot.identity] = msgspec.structs.replace(snapshot, seen_ms=now_ms())
            self._version += 1
            self._changed.notify_all()

    async def disturb(self, *, down: bool = False, fault: Mt5SwarmError | None = None) -> None:
        """Be away, or raise one fault at the next call or the running poll."""
        async with self._changed:
            self.down, self.fault = down, fault
            self._changed.notify_all()

    async def sign_in(
        self,
        token: int,
        credentials: Credentials,
        *,
        must_prove: bool = False,  # noqa: ARG002 - every login here is proven
        deadline_s: float = LOGIN_DEADLINE_S,  # noqa: ARG002 - and immediate
    ) -> SignedIn:
        """See `StreamTerminal.sign_in`."""
        self._check(token)
        identity = credentials.identity
        self.sign_ins.append(identity)
        if self.passwords.get(identity) != credentials.password.reveal():
            raise LoginRefused("the broker refused these credentials")
        logged_in, self._account = identity != self._account, identity
        return SignedIn(logged_in, self._look(self.answers_as.get(identity, identity)))

    async def wait_changes(
        self,
        token: int,
        identity: AccountIdentity,
        since: str,
        *,
        timeout_s: float = POLL_TIMEOUT_S,
        hold_s: float = 0.0,
    ) -> Look:
        """See `StreamTerminal.wait_changes`."""
        self.polls += 1
        self.most_polls = max(self.most_polls, self.polls)
        self._generation += 1
        generation = self._generation
        try:
            if since and hold_s:
                await asyncio.sleep(hold_s)
                since = ""
            async with self._changed:
                self._changed.notify_all()
                return await self._next_look(token, identity, since, generation, timeout_s)
        finally:
            self.polls -= 1

    async def _next_look(
        self, token: int, identity: AccountIdentity, since: str, generation: int, timeout_s: float
    ) -> Look:
        def over() -> bool:
            self._check(token)
            if generation != self._generation:
                raise PollSuperseded("a newer poll has begun")
            if identity != self._account:
                raise WrongAccount("another account is logged in")
            return str(self._version) != since

        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait_for(over)
        except TimeoutError:
            self._check(token)
        return Look(str(self._version), self._look(identity))

    def _look(self, identity: AccountIdentity) -> Snapshot:
        known = self._looks.get(identity) or make_snapshot(identity)
        return msgspec.structs.replace(known, seen_ms=now_ms())

    def _check(self, token: int) -> None:
        if self.down:
            raise TerminalUnavailable("the terminal is away", retry_after_s=1)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        if token < self._token:
            raise StaleToken("a newer owner has been there")
        self._token = token

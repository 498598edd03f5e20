"""The link to one terminal: two connections, typed answers, every call timed."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias, TypeVar

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryPage, HistoryQuery, HistorySize
from mt5kit.domain.snapshots import Snapshot
from mt5kit.domain.trades import Deal, Order
from mt5kit.errors import Mt5SwarmError, PollSuperseded, WrongAccount
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.answers import (
    Look,
    PollOpened,
    SignedIn,
    WhoIsIn,
    decode,
    unpack,
)
from mt5kit.terminal.channel import Channel, Door
from mt5kit.terminal.connection import Connection
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.outcomes import outcome_of
from mt5kit.terminal.protocol import LOGIN_DEADLINE_S, POLL_TIMEOUT_S, READ_DEADLINE_S
from mt5kit.terminal.settling import Settling
from mt5kit.terminal.supervisor import Peer

# MetaTrader gives a login up before we give MetaTrader up.
LOGIN_MARGIN_S: Final = 2.0
# Connecting to the terminal is the only part of a probe that MetaTrader bounds itself.
PROBE_MARGIN_S: Final = 0.5
# A poll answers within its timeout, one rest and one look; beyond this margin it is lost.
POLL_MARGIN_S: Final = 3.0

T = TypeVar("T")
_Make: TypeAlias = Callable[[TerminalAddress, AddressGuard], Door]


class TerminalLink:
    """Speaks to one terminal; implements `AccountTerminal` and `StreamTerminal`.

    A streamed terminal has two connections, one for the poll and one for calls; the second is
    opened by the first poll.

    Args:
        address: Where the terminal is.
        guard: Which addresses may be spoken to.
        metrics: Where calls are counted and timed.
        make: Makes a connection, not yet open; a test may give its own.

    Attributes:
        terminal_id: Of the terminal.
        settling: Of the history of the account that is in.
    """

    def __init__(
        self,
        address: TerminalAddress,
        guard: AddressGuard,
        metrics: TerminalMetrics,
        make: _Make = Connection,
    ) -> None:
        self.terminal_id = address.terminal_id
        self._port = address.port
        self.settling = Settling()
        self._metrics = metrics
        self._connects = 0
        self._closing = False
        self._poll_open = False
        self._poll_started = False
        self._calls = Channel(
            f"mt5-{address.terminal_id}-call", partial(make, address, guard), self._calls_changed
        )
        self._polls = Channel(
            f"mt5-{address.terminal_id}-poll", partial(make, address, guard), self._polls_changed
        )

    @property
    def connected(self) -> bool:
        """Whether the connection for calls stands."""
        return self._calls.connected

    @property
    def peer(self) -> Peer | None:
        """What the connection for calls is connected to; None while it is not."""
        address = self._calls.address
        return None if address is None else Peer(address, self._port)

    def start(self) -> None:
        """Connect in the background; needs a running event loop."""
        self._calls.start()

    async def aclose(self) -> None:
        """End both connections; the terminal keeps its login.

        What is under way fails at once. Whether the terminal is up is from now on for the next
        link to it to say, which may stand before this one has gone.
        """
        self._closing = True
        await asyncio.gather(self._polls.aclose(), self._calls.aclose())

    async def sign_in(
        self,
        token: int,
        credentials: Credentials,
        *,
        must_prove: bool = False,
        deadline_s: float = LOGIN_DEADLINE_S,
    ) -> SignedIn:
        """See `AccountTerminal.sign_in`."""
        identity = credentials.identity
        timeout_ms = _module_timeout_ms(deadline_s, LOGIN_MARGIN_S)
        login = (identity.login, credentials.password, identity.server)
        args = (*login, timeout_ms, must_prove, credentials.seal)
        try:
            signed = await self._ask(self._calls, SignedIn, "sign_in", token, args, deadline_s)
        except Mt5SwarmError as failure:
            self._metrics.count_login(identity.server, outcome_of(failure))
            # It may have been made nevertheless: an answer can come too late.
            self.settling.logged_in(identity)
            raise
        if signed.logged_in:
            self.settling.logged_in(signed.snapshot.identity)
            self._metrics.count_login(signed.snapshot.account.server, "ok")
        return signed

    async def snapshot(
        self, token: int, identity: AccountIdentity, *, deadline_s: float = READ_DEADLINE_S
    ) -> Snapshot:
        """See `AccountTerminal.snapshot`."""
        args = (identity.login, identity.server)
        look = await self._ask(self._calls, Snapshot, "snapshot", token, args, deadline_s)
        return self._of(identity, look)

    async def probe(
        self, token: int, *, deadline_s: float = READ_DEADLINE_S
    ) -> AccountIdentity | None:
        """See `AccountTerminal.probe`."""
        args = (_module_timeout_ms(deadline_s, PROBE_MARGIN_S),)
        who = await self._ask(self._calls, WhoIsIn, "probe", token, args, deadline_s)
        return who.identity

    async def history_size(
        self, token: int, identity: AccountIdentity, *, deadline_s: float = READ_DEADLINE_S
    ) -> HistorySize:
        """See `AccountTerminal.history_size`."""
        args = (identity.login, identity.server)
        return await self._ask(self._calls, HistorySize, "history_size", token, args, deadline_s)

    async def deals(
        self,
        token: int,
        identity: AccountIdentity,
        query: HistoryQuery,
        *,
        deadline_s: float = READ_DEADLINE_S,
    ) -> HistoryPage[Deal]:
        """See `AccountTerminal.deals`."""
        args = _history_args(identity, "deals", query)
        return await self._ask(self._calls, HistoryPage[Deal], "history", token, args, deadline_s)

    async def orders(
        self,
        token: int,
        identity: AccountIdentity,
        query: HistoryQuery,
        *,
        deadline_s: float = READ_DEADLINE_S,
    ) -> HistoryPage[Order]:
        """See `AccountTerminal.orders`."""
        args = _history_args(identity, "orders", query)
        return await self._ask(self._calls, HistoryPage[Order], "history", token, args, deadline_s)

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
        if not (self._poll_started or self._closing):
            self._poll_started = True
            self._polls.start()
        if not self._poll_open or not since:
            await self._ask(self._polls, PollOpened, "open_poll", token, (), READ_DEADLINE_S)
            self._poll_open = True
            # A new process counts its looks from the start: an old version may look like its own.
            since = ""
        args = (identity.login, identity.server, since, timeout_s, hold_s if since else 0.0)
        limit_s = max(timeout_s, hold_s) + POLL_MARGIN_S
        try:
            look = await self._ask(self._polls, Look, "wait_changes", token, args, limit_s)
        except PollSuperseded:
            self._poll_open = False
            raise
        self._of(identity, look.snapshot)
        return look

    def _of(self, identity: AccountIdentity, look: Snapshot) -> Snapshot:
        """The look, if it is of this account: the agent has checked, and we do not take its word.

        Raises:
            WrongAccount: It is of another.
        """
        if look.identity != identity:
            self._metrics.wrong_account_refusals.inc()
            raise WrongAccount("the terminal answered for another account")
        return look

    async def _ask(
        self,
        channel: Channel,
        kind: type[T],
        op: str,
        token: int,
        args: tuple[object, ...],
        timeout_s: float,
    ) -> T:
        began = time.perf_counter()
        outcome = "ok"
        try:
            reply = await channel.call(op, token, args, timeout_s)
            return decode(unpack(reply), kind)
        except Mt5SwarmError as failure:
            outcome = outcome_of(failure)
            if isinstance(failure, WrongAccount):
                self._metrics.wrong_account_refusals.inc()
            raise
        except BaseException:
            outcome = "cancelled"
            raise
        finally:
            elapsed = time.perf_counter() - began
            self._metrics.call_duration.labels(op, outcome).observe(elapsed)

    def _calls_changed(self, connected: bool) -> None:
        if self._closing:
            return
        self._metrics.up.labels(self.terminal_id).set(connected)
        if connected:
            self._connects += 1
            if self._connects > 1:
                self._metrics.reconnects.labels(self.terminal_id).inc()

    def _polls_changed(self, _connected: bool) -> None:
        # A new connection has a new agent, which has no poll yet.
        self._poll_open = False


def _module_timeout_ms(deadline_s: float, margin_s: float) -> int:
    """What MetaTrader is given of a deadline: always less than we wait ourselves."""
    return round(max(deadline_s - margin_s, deadline_s / 2) * 1000)


def _history_args(identity: AccountIdentity, kind: str, query: HistoryQuery) -> tuple[object, ...]:
    span = (query.start, query.end)
    which = (query.symbol, query.before, query.limit, query.most)
    return (identity.login, identity.server, kind, span, *which)

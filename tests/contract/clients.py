"""The two ways to a terminal that the matrix compares: mt5linux's own client, and our agent."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

import msgspec
import rpyc
from mt5linux import MetaTrader5
from prometheus_client import CollectorRegistry
from tests.contract.catalogue import Need
from tests.contract.targets import Account

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryQuery
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import BrokerTimeout, CallFailed, LoginRefused, Mt5SwarmError
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.answers import Look
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.link import TerminalLink

Fields = dict[str, Any]
"""A struct's field names to values, in their order."""
T = TypeVar("T")

ANYWHERE: Final = ["0.0.0.0/0", "::/0"]
# A page of history; the matrix pages by itself.
PAGE: Final = 500
# More than any row waits for; a real broker may need most of it.
PATIENCE_S: Final = 90.0


class NotIn(Exception):
    """A login did not succeed.

    Attributes:
        code: Of ``last_error()``.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the login ended with {code}")
        self.code = code


class Client(Protocol):
    """What a row may ask of either client. Reads are of the account that signed in last."""

    name: str
    gives: frozenset[Need]

    def sign_in(
        self,
        account: Account,
        *,
        password: str | None = None,
        timeout_ms: int = 30_000,
        prove: bool = True,
    ) -> Fields:
        """Log an account in and return its AccountInfo.

        Without `prove` an account that is in already stays in, where the client can tell.

        Raises:
            NotIn: The broker refused, or did not answer.
        """

    def account(self) -> Fields:
        """AccountInfo."""

    def positions(self) -> list[Fields]:
        """TradePosition of every open position."""

    def orders(self) -> list[Fields]:
        """TradeOrder of every pending order."""

    def deals(self, first: int, last: int, symbol: str = "") -> list[Fields]:
        """TradeDeal between two wall-clock seconds, both included, oldest first."""

    def done_orders(self, first: int, last: int, symbol: str = "") -> list[Fields]:
        """TradeOrder of the history, likewise."""

    def trade_permissions(self) -> tuple[bool, bool]:
        """Whether the terminal is connected to its broker, and may trade."""

    def close(self) -> None:
        """End the connection."""


def connected(host: str, port: int) -> Any:
    """A connection of mt5linux's own client."""
    return MetaTrader5(host, port)


def disconnect(mt5: Any) -> None:
    """End a connection of mt5linux's own client, which has no method for it."""
    mt5._MetaTrader5__conn.close()


def next_token(mt5: Any) -> int:
    """A fencing token that the agent in this terminal has not seen."""
    fence = "__import__('sys').modules.get('_mt5_swarm_fence')"
    token: int = mt5.eval(f"getattr({fence}, 'token', 0)")
    return token + 1


def values(struct: Any) -> Fields:
    """A result struct's fields by value; they arrive as references."""
    fields: Fields = rpyc.classic.obtain(struct._asdict())
    return fields


def every(mt5: Any, structs: Any) -> list[Fields]:
    """The fields of many structs by value, in a few round trips however many there are."""
    taken = mt5.eval("lambda structs: [struct._asdict() for struct in structs]")(structs)
    fields: list[Fields] = rpyc.classic.obtain(taken)
    return fields


class StockClient:
    """mt5linux 1.0.3; `mt5` is its MetaTrader5 object."""

    name = "mt5linux"
    gives = frozenset((Need.MODULE,))

    def __init__(self, host: str, port: int) -> None:
        self.mt5 = connected(host, port)

    def sign_in(
        self,
        account: Account,
        *,
        password: str | None = None,
        timeout_ms: int = 30_000,
        prove: bool = True,
    ) -> Fields:
        """See `Client.sign_in`."""
        given = {
            "password": account.password if password is None else password,
            "server": account.server,
            "timeout": timeout_ms,
        }
        if not self.mt5.login(account.login, **given):
            raise NotIn(self.mt5.last_error()[0])
        return self.account()

    def account(self) -> Fields:
        """See `Client.account`."""
        return values(self.mt5.account_info())

    def positions(self) -> list[Fields]:
        """See `Client.positions`."""
        return every(self.mt5, self.mt5.positions_get())

    def orders(self) -> list[Fields]:
        """See `Client.orders`."""
        return every(self.mt5, self.mt5.orders_get())

    def deals(self, first: int, last: int, symbol: str = "") -> list[Fields]:
        """See `Client.deals`."""
        found = self.mt5.history_deals_get(first, last)
        return [row for row in every(self.mt5, found) if symbol in {"", row["symbol"]}]

    def done_orders(self, first: int, last: int, symbol: str = "") -> list[Fields]:
        """See `Client.done_orders`."""
        found = self.mt5.history_orders_get(first, last)
        return [row for row in every(self.mt5, found) if symbol in {"", row["symbol"]}]

    def trade_permissions(self) -> tuple[bool, bool]:
        """See `Client.trade_permissions`."""
        info = self.mt5.terminal_info()
        return info.connected, info.trade_allowed

    def close(self) -> None:
        """See `Client.close`."""
        disconnect(self.mt5)


class LoopThread:
    """An event loop in a thread of its own, for blocking callers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="contract-agent", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def close(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class AgentClient:
    """Our agent through `TerminalLink`; `link`, `token`, `identity` are for rows about itself.

    Args:
        host: Of the terminal.
        port: Of the terminal.
        token: For fencing, no smaller than any before it at this terminal.
    """

    name = "agent"
    gives = frozenset((Need.GUARD, Need.POLL))

    def __init__(self, host: str, port: int, token: int) -> None:
        self.token = token
        self.identity = AccountIdentity(0, "")
        self._loop = LoopThread()
        metrics = TerminalMetrics(CollectorRegistry())
        address = TerminalAddress("contract", host, port)
        self.link = TerminalLink(address, AddressGuard(ANYWHERE), metrics)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine of the link."""
        return self._loop.run(work)

    def sign_in(
        self,
        account: Account,
        *,
        password: str | None = None,
        timeout_ms: int = 30_000,
        prove: bool = True,
    ) -> Fields:
        """See `Client.sign_in`."""
        secret = Secret(account.password if password is None else password)
        asked = AccountIdentity(account.login, account.server)
        # The link gives MetaTrader two seconds less than it has itself.
        deadline_s = timeout_ms / 1000 + 2
        try:
            signed = self.run(
                self.link.sign_in(
                    self.token,
                    # What is typed has no seal; what is stored has one, other for each password.
                    Credentials(asked, secret, b"" if prove else secret.reveal().encode()),
                    must_prove=prove,
                    deadline_s=deadline_s,
                )
            )
        except (LoginRefused, CallFailed, BrokerTimeout) as refused:
            raise NotIn(_code(refused)) from refused
        self.identity = signed.snapshot.identity
        return _fields(signed.snapshot.account)

    def look(self) -> Snapshot:
        """Everything of one turn."""
        return self.run(self.link.snapshot(self.token, self.identity))

    def account(self) -> Fields:
        """See `Client.account`."""
        return _fields(self.look().account)

    def positions(self) -> list[Fields]:
        """See `Client.positions`."""
        return [_fields(position) for position in self.look().positions]

    def orders(self) -> list[Fields]:
        """See `Client.orders`."""
        return [_fields(order) for order in self.look().orders]

    def deals(self, first: int, last: int, symbol: str = "") -> list[Fields]:
        """See `Client.deals`."""
        return self._pages(self.link.deals, HistoryQuery(first, last, symbol, None, PAGE))

    def done_orders(self, first: int, last: int, symbol: str = "") -> list[Fields]:
        """See `Client.done_orders`."""
        return self._pages(self.link.orders, HistoryQuery(first, last, symbol, None, PAGE))

    def _pages(self, read: Callable[..., Any], query: HistoryQuery) -> list[Fields]:
        """Every row of a history, oldest first."""
        found: list[Any] = []
        while True:
            page = self.run(read(self.token, self.identity, query))
            found += page.rows
            if page.next_cursor is None:
                return [_fields(row) for row in reversed(found)]
            query = msgspec.structs.replace(query, before=page.next_cursor)

    def trade_permissions(self) -> tuple[bool, bool]:
        """See `Client.trade_permissions`."""
        status = self.look().terminal
        return status.connected, status.trade_allowed

    def poll(self, since: str, timeout_s: float = 5.0) -> Look:
        """The next look that differs from look `since`."""
        work = self.link.wait_changes(self.token, self.identity, since, timeout_s=timeout_s)
        return self.run(work)

    def close(self) -> None:
        """See `Client.close`."""
        try:
            self.run(self.link.aclose())
        finally:
            self._loop.close()


def _code(refused: Mt5SwarmError) -> int:
    code = refused.details["mt5_code"]
    assert isinstance(code, int)
    return code


def _fields(value: msgspec.Struct) -> Fields:
    """The fields under MetaTrader's names, without the UTC strings that we add."""
    return {
        name: getattr(value, name) for name in value.__struct_fields__ if not name.endswith("_utc")
    }

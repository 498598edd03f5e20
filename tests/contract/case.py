"""What a row gets: the client it is about, a second pair of hands, and the target."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final, NoReturn

import httpx
import pytest
from tests.contract.clients import (
    AgentClient,
    Client,
    Fields,
    StockClient,
    connected,
    disconnect,
    next_token,
)
from tests.contract.targets import Account, Target

API: Final[dict[str, Any]] = json.loads(files("terminal_sim").joinpath("mt5_api.json").read_text())
CONSTANTS: Final[dict[str, int]] = API["constants"]
STRUCTS: Final[dict[str, list[str]]] = API["structs"]
SUCCESS: Final = (1, "Success")
# All of history: wall-clock seconds from 1970 to 2106.
EVER: Final = (0, 2**32)
# What another process does takes milliseconds here and may take seconds at a broker.
EVENTUALLY_S: Final = 15.0
# Between two logins at a real broker.
BETWEEN_LOGINS_S: Final = 2.0


@dataclass
class Case:
    """One row with one client.

    Attributes:
        target: What it runs against.
        client: The client it is about.
        mt5: A connection of mt5linux's own client to the same terminal: the client's own when it
            is about mt5linux, otherwise the hands that do what the agent has no operation for.
    """

    target: Target
    client: Client
    mt5: Any
    _more: list[Any] = field(default_factory=list)

    def agent(self) -> AgentClient:
        """The client, in rows that only the agent can express."""
        assert isinstance(self.client, AgentClient)
        return self.client

    def constant(self, name: str) -> int:
        """A constant of the module."""
        return CONSTANTS[name]

    def another(self, terminal: int = 0) -> Any:
        """One more connection of mt5linux's own client, closed with the row."""
        made = connected(*self.target.terminals[terminal])
        self._more.append(made)
        return made

    def at_home(self, mt5: Any | None = None) -> None:
        """Log the home account in, with the right to trade, unless it is in."""
        self.log_in(self.target.home, mt5)

    def log_in(self, account: Account | None, mt5: Any | None = None) -> None:
        """Log an account in, with the right to trade, unless it is in."""
        assert account is not None
        put_in(account, mt5 or self.mt5, tries=self.target.login_tries)

    def error(self) -> int:
        """Code of the last error."""
        code: int = self.mt5.last_error()[0]
        return code

    def refuses(self, call: str, code: str = "RES_E_INVALID_PARAMS", value: object = None) -> None:
        """Assert that a call ends with a failure value and a code, and with nothing raised."""
        assert self.mt5.eval(f"mt5.{call}") is value, call
        error, text = self.mt5.last_error()
        assert error == CONSTANTS[code], f"{call}: {error} {text}"
        assert isinstance(text, str)

    def eventually(self, condition: Callable[[], object], limit_s: float = EVENTUALLY_S) -> None:
        """Assert that a condition comes true; brokers take their time."""
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.005)

    def steady(self) -> tuple[Fields, list[Fields]]:
        """Account and positions with no tick in between."""
        for _ in range(200):
            account, positions = self.client.account(), self.client.positions()
            if self.client.account() == account:
                return account, positions
        raise AssertionError("the market never held still")

    def lacks(self, what: str) -> NoReturn:
        """Skip the row: this target's account has nothing to look at. The simulator's has all."""
        assert not self.target.simulated, f"the simulator's account has no {what}"
        pytest.skip(f"the account has no {what}")

    def control(self, method: str, path: str, **given: Any) -> Any:
        """What the simulator's control API answers."""
        headers = {"X-Supervisor-Key": self.target.control_key}
        url = f"{self.target.control_url}{path}"
        answer = httpx.request(method, url, headers=headers, timeout=30, **given)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def close(self) -> None:
        """End all connections."""
        for made in (*self._more, self.mt5):
            with contextlib.suppress(EOFError, OSError):
                disconnect(made)
        if not isinstance(self.client, StockClient):
            self.client.close()


def open_case(target: Target, client: str) -> Case:
    """A case with the home account logged in, for the client of a name."""
    host, port = target.terminals[0]
    with contextlib.ExitStack() as made:
        stock = StockClient(host, port)
        made.callback(stock.close)
        put_in(target.home, stock.mt5, tries=target.login_tries)
        case = Case(target, stock, stock.mt5)
        if client != StockClient.name:
            agent = AgentClient(host, port, next_token(stock.mt5))
            made.callback(agent.close)
            agent.sign_in(target.home, prove=False)
            case.client = agent
        made.pop_all()
        return case


def put_in(account: Account, mt5: Any, *, tries: int = 1) -> None:
    """Log an account in through mt5linux, with the right to trade, unless it is in.

    Real brokers refuse a login that comes right after another one: there are several tries for
    them, and one for the simulator.
    """
    assert mt5.initialize(), mt5.last_error()
    info = mt5.account_info()
    if info is not None and info.login == account.login and info.trade_allowed:
        return
    given = {"password": account.password, "server": account.server}
    for _ in range(tries - 1):
        if mt5.login(account.login, **given):
            return
        time.sleep(BETWEEN_LOGINS_S)
    assert mt5.login(account.login, **given), mt5.last_error()

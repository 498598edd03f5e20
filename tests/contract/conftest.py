"""The conformance matrix runs through mt5linux's own client.

By default against a simulator of its own; with MT5_CONTRACT_HOST and MT5_CONTRACT_PORT against any
RPyC server with a MetaTrader5 module, logged in with MT5_CONTRACT_LOGIN, _PASSWORD and _SERVER.
Rows that need two known accounts are then skipped.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from mt5linux import MetaTrader5

from terminal_sim.testing import running


@dataclass(frozen=True)
class Target:
    host: str
    port: int
    login: int
    password: str
    server: str
    control_url: str | None = None


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    host = os.environ.get("MT5_CONTRACT_HOST")
    if host:
        yield Target(
            host,
            int(os.environ["MT5_CONTRACT_PORT"]),
            int(os.environ["MT5_CONTRACT_LOGIN"]),
            os.environ["MT5_CONTRACT_PASSWORD"],
            os.environ["MT5_CONTRACT_SERVER"],
        )
        return
    with running("--login-seconds", "0.2") as ready:
        where = ready.terminals[0]
        login = 5001001, "Demo-1001-main", "MT5Swarm-Demo"
        yield Target(where.host, where.port, *login, ready.control_url)


@pytest.fixture
def connect(target: Target) -> Iterator[Callable[[], Any]]:
    clients: list[Any] = []

    def make() -> Any:
        client = MetaTrader5(target.host, target.port)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client._MetaTrader5__conn.close()


@pytest.fixture
def bare(connect: Callable[[], Any]) -> Any:
    """A client of a terminal that is not initialised."""
    client = connect()
    client.shutdown()
    return client


@pytest.fixture
def mt5(connect: Callable[[], Any], target: Target) -> Any:
    """A client of a terminal on which the target's account is logged in."""
    client = connect()
    assert client.initialize()
    info = client.account_info()
    if info is None or info.login != target.login or not info.trade_allowed:
        assert client.login(target.login, password=target.password, server=target.server)
    return client


@pytest.fixture
def simulated(target: Target) -> None:
    if target.control_url is None:
        pytest.skip("needs the simulator's own accounts")

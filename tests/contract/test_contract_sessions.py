import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

OTHER = 5001002, "Demo-1002-main", "MT5Swarm-Demo"
GETTERS = ["account_info", "terminal_info", "positions_get", "orders_get", "symbols_total"]


@pytest.mark.parametrize("call", GETTERS)
def test_60_before_initialize_there_is_no_connection(bare: Any, call: str) -> None:
    assert getattr(bare, call)() is None
    assert bare.last_error() == (-10004, "No IPC connection")


def test_61_login_before_initialize_is_refused(bare: Any, target: Any) -> None:
    assert bare.login(target.login, password=target.password, server=target.server) is False
    assert bare.last_error() == (-10004, "No IPC connection")


def test_62_initialize_can_log_in(bare: Any, target: Any) -> None:
    given = {"login": target.login, "password": target.password, "server": target.server}
    assert bare.initialize(**given)
    assert bare.account_info().login == target.login


def test_63_a_wrong_password_ends_the_session(mt5: Any, target: Any) -> None:
    assert mt5.login(target.login, password="wrong", server=target.server) is False
    assert mt5.last_error() == (-6, "Terminal: Authorization failed")
    assert mt5.account_info() is None
    assert mt5.last_error()[0] < 0


def test_64_an_unknown_server_takes_the_whole_timeout(mt5: Any, target: Any) -> None:
    given = {"password": target.password, "server": "NoSuch-Server", "timeout": 300}
    assert mt5.login(target.login, **given) is False
    assert mt5.last_error() == (-10005, "IPC timeout")


@pytest.mark.usefixtures("mt5")
def test_65_the_login_is_shared_by_all_connections(connect: Callable[[], Any], target: Any) -> None:
    assert connect().account_info().login == target.login


def test_66_shutdown_ends_it_for_all(mt5: Any, connect: Callable[[], Any]) -> None:
    other = connect()
    other.shutdown()
    assert mt5.account_info() is None
    assert mt5.last_error() == (-10004, "No IPC connection")


@pytest.mark.usefixtures("simulated")
def test_67_another_account_takes_the_terminal_over(mt5: Any, connect: Callable[[], Any]) -> None:
    login, password, server = OTHER
    assert connect().login(login, password=password, server=server)
    assert mt5.account_info().login == login


@pytest.mark.usefixtures("simulated")
def test_68_a_saved_password_is_enough(mt5: Any, target: Any) -> None:
    login, password, server = OTHER
    assert mt5.login(login, password=password, server=server)
    assert mt5.login(target.login)
    assert mt5.account_info().login == target.login
    assert mt5.login(5001003, server=server) is False
    assert mt5.last_error()[0] == -6


@pytest.mark.usefixtures("simulated")
def test_69_an_investor_may_not_trade(mt5: Any, target: Any) -> None:
    assert mt5.login(target.login, password="Demo-1001-view", server=target.server)
    assert mt5.account_info().trade_allowed is False


@pytest.mark.usefixtures("simulated")
def test_70_a_login_freezes_every_other_connection(
    mt5: Any, connect: Callable[[], Any], target: Any
) -> None:
    """A call that arrives during a login is answered when the login is over, not before."""
    reader = connect()
    login, password, server = OTHER
    given = {"password": password, "server": server}
    thread = threading.Thread(target=lambda: mt5.login(login, **given))
    thread.start()
    while terminal(target)["in_login_until"] is None:
        assert thread.is_alive()
    answered = reader.eval("mt5.account_info().login")
    thread.join()
    assert answered == login


@pytest.mark.usefixtures("simulated")
def test_71_readers_during_logins_see_one_account_or_the_other(
    mt5: Any, connect: Callable[[], Any], target: Any
) -> None:
    reader, stop, seen = connect(), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(reader.eval("(mt5.account_info() or (None,))[0]"))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for login, password, server in (OTHER, (target.login, target.password, target.server)) * 3:
            assert mt5.login(login, password=password, server=server)
    finally:
        stop.set()
        thread.join()
    assert set(seen) == {OTHER[0], target.login}


def terminal(target: Any) -> dict[str, Any]:
    first: dict[str, Any] = httpx.get(f"{target.control_url}/terminals").json()["terminals"][0]
    return first

"""001-049: connecting to the terminal, and logging in."""

import threading
import time

import pytest
from tests.contract.case import BETWEEN_LOGINS_S, SUCCESS, Case
from tests.contract.catalogue import Need, family, row
from tests.contract.clients import NotIn

SILENT = (
    "account_info()",
    "terminal_info()",
    "version()",
    "positions_get()",
    "orders_total()",
    "symbols_total()",
    "symbol_info('EURUSD')",
    "copy_rates_from_pos('EURUSD', 1, 0, 1)",
    "history_deals_total(0, 1)",
)
NO_CONNECTION = -10004, "No IPC connection"


@family(1, "before initialize() {} answers None and -10004", SILENT, Need.MODULE)
def before_initialize(case: Case, call: str) -> None:
    case.mt5.shutdown()
    assert case.mt5.eval(f"mt5.{call}") is None
    assert case.mt5.last_error() == NO_CONNECTION


@row(12, "login() before initialize() is False and -10004", Need.MODULE)
def login_before_initialize(case: Case) -> None:
    case.mt5.shutdown()
    home = case.target.home
    assert case.mt5.login(home.login, password=home.password, server=home.server) is False
    assert case.mt5.last_error() == NO_CONNECTION


@row(13, "initialize() with credentials logs in", Need.MODULE, core=True)
def initialize_logs_in(case: Case) -> None:
    home = case.target.home
    # Nobody is in after this, so that whoever is found came by initialize().
    assert case.mt5.login(home.login, password="wrong", server=home.server) is False
    case.mt5.shutdown()
    if not case.target.simulated:
        time.sleep(BETWEEN_LOGINS_S)
    given = {"login": home.login, "password": home.password, "server": home.server}
    assert case.mt5.initialize(**given) is True
    assert case.mt5.account_info().login == home.login


@row(14, "initialize() twice is no error", Need.MODULE)
def initialize_twice(case: Case) -> None:
    assert case.mt5.initialize() is True
    assert case.mt5.initialize() is True
    assert case.mt5.last_error() == SUCCESS


@row(15, "initialize() after shutdown() finds the account again", Need.MODULE)
def initialize_again(case: Case) -> None:
    case.mt5.shutdown()
    assert case.mt5.initialize() is True
    assert case.mt5.account_info().login == case.target.home.login


@row(16, "a login is answered with the account that is in", core=True)
def login_answers(case: Case) -> None:
    home = case.target.home
    info = case.client.sign_in(home)
    assert (info["login"], info["server"]) == (home.login, home.server)


@row(17, "a wrong password is refused with -6", core=True)
def wrong_password(case: Case) -> None:
    with pytest.raises(NotIn) as refused:
        case.client.sign_in(case.target.home, password="wrong")
    assert refused.value.code == case.constant("RES_E_AUTH_FAILED")


@row(18, "after a refused login no account is in", Need.MODULE)
def nobody_is_in(case: Case) -> None:
    home = case.target.home
    assert case.mt5.login(home.login, password="wrong", server=home.server) is False
    assert case.mt5.last_error() == (-6, "Terminal: Authorization failed")
    assert case.mt5.account_info() is None
    assert case.error() < 0


@row(19, "after a refused login the next good one is accepted", core=True)
def next_login(case: Case) -> None:
    with pytest.raises(NotIn):
        case.client.sign_in(case.target.home, password="wrong")
    assert case.client.sign_in(case.target.home)["login"] == case.target.home.login


@row(20, "a login that nobody has is refused with -6", Need.MODULE)
def unknown_login(case: Case) -> None:
    home = case.target.home
    assert case.mt5.login(4_000_000_007, password="x", server=home.server) is False
    assert case.error() == case.constant("RES_E_AUTH_FAILED")


@row(21, "an unknown server takes the whole timeout and ends in -10005")
def unknown_server(case: Case) -> None:
    home = case.target.home
    nowhere = type(home)(home.login, "NoSuch-Server", home.password)
    began = time.monotonic()
    with pytest.raises(NotIn) as refused:
        case.client.sign_in(nowhere, timeout_ms=500)
    assert time.monotonic() - began >= 0.5
    assert refused.value.code == case.constant("RES_E_INTERNAL_FAIL_TIMEOUT")


@row(22, "a saved password is enough", Need.MODULE, Need.TWO_ACCOUNTS)
def saved_password(case: Case) -> None:
    case.log_in(case.target.second)
    assert case.mt5.login(case.target.home.login) is True
    assert case.mt5.account_info().login == case.target.home.login


@row(23, "without a saved password a login is refused with -6", Need.MODULE, Need.CONTROL)
def no_saved_password(case: Case) -> None:
    assert case.mt5.login(7999, server=case.target.home.server) is False
    assert case.error() == case.constant("RES_E_AUTH_FAILED")


@row(24, "an investor password logs in without the right to trade", Need.INVESTOR, core=True)
def investor(case: Case) -> None:
    info = case.client.sign_in(case.target.home, password=case.target.home.investor)
    assert info["login"] == case.target.home.login
    assert info["trade_allowed"] is False


@row(25, "another login takes the terminal over", Need.TWO_ACCOUNTS, core=True)
def taken_over(case: Case) -> None:
    second = case.target.second
    assert second is not None
    info = case.client.sign_in(second)
    assert info["login"] == second.login
    assert case.mt5.account_info().login == second.login


@row(26, "the login is shared by every connection", Need.MODULE, core=True)
def shared_login(case: Case) -> None:
    assert case.another().account_info().login == case.target.home.login


@row(27, "last_error() is shared by every connection", Need.MODULE)
def shared_error(case: Case) -> None:
    assert case.mt5.symbol_info("NOSUCH") is None
    assert case.another().last_error() == case.mt5.last_error() != SUCCESS


@row(28, "shutdown() ends it for every connection", Need.MODULE)
def shared_shutdown(case: Case) -> None:
    case.another().shutdown()
    assert case.mt5.account_info() is None
    assert case.mt5.last_error() == NO_CONNECTION


@row(29, "a call during a login is answered when the login is over", Need.CONTROL, Need.MODULE)
def frozen_meanwhile(case: Case) -> None:
    reader = case.another()
    for account in (case.target.second, case.target.home) * 20:
        assert account is not None
        thread = threading.Thread(target=case.log_in, args=(account,))
        thread.start()
        announced = caught(case, thread)
        answered = reader.eval("mt5.account_info().login")
        thread.join()
        if announced:
            assert answered == account.login
            return
    raise AssertionError("no login was ever announced")


def caught(case: Case, login: threading.Thread) -> bool:
    """Whether the terminal announced a login while it lasted; on a busy machine it may be over."""
    while login.is_alive():
        if case.control("GET", "/terminals")["terminals"][0]["in_login_until"] is not None:
            return True
    return False


@row(30, "readers during logins see one account or the other", Need.MODULE, Need.TWO_ACCOUNTS)
def never_between(case: Case) -> None:
    reader, stop, seen = case.another(), threading.Event(), []
    assert case.target.second is not None

    def read() -> None:
        while not stop.is_set():
            seen.append(reader.eval("(mt5.account_info() or (None,))[0]"))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for account in (case.target.second, case.target.home) * 2:
            case.log_in(account)
    finally:
        stop.set()
        thread.join()
    assert seen
    assert set(seen) <= {case.target.home.login, case.target.second.login}


@row(31, "the terminal is connected", core=True)
def connected_terminal(case: Case) -> None:
    connected, _trade_allowed = case.client.trade_permissions()
    assert connected is True


@row(32, "version() is three values", Need.MODULE, core=True)
def version(case: Case) -> None:
    parts = case.mt5.version()
    assert [type(part) for part in parts] == [int, int, str]
    assert case.mt5.terminal_info().build == parts[1]


@row(33, "a login's timeout shorter than it takes ends in -10005", Need.CONTROL, Need.MODULE)
def too_slow(case: Case) -> None:
    assert case.mt5.login(case.target.home.login, timeout=1) is False
    assert case.error() == case.constant("RES_E_INTERNAL_FAIL_TIMEOUT")

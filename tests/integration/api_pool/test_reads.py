"""Reading: fields, freshness, history, a terminal that dies."""

import gc
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import freeze
from tests.waiting import wait_for

from mt5kit.terminal.connection import Connection

STRUCTS = json.loads(
    (Path(__file__).parents[3] / "services/terminal_sim/mt5_api.json").read_text()
)["structs"]


@pytest.fixture(scope="module", autouse=True)
def connected(api: Any) -> None:
    for account_id, login in (("alpha", 1001), ("beta", 1002), ("gamma", 1003)):
        assert api.connect(account_id, login).status_code == 200


def test_info_has_every_field_and_meta(api: Any) -> None:
    body = api.get("/api/mt5/account/alpha/info").json()
    assert list(body["account"]) == STRUCTS["AccountInfo"]
    meta = body["meta"]
    assert set(meta) == {
        "account_id",
        "terminal_id",
        "instance_id",
        "source",
        "as_of",
        "age_ms",
        "queue_wait_ms",
        "broker_ms",
    }
    assert meta["account_id"] == "alpha"


def test_positions_and_orders_have_every_field_and_utc(api: Any) -> None:
    positions = api.get("/api/mt5/account/alpha/positions").json()["positions"]
    assert len(positions) == 2
    for position in positions:
        assert list(position)[: len(STRUCTS["TradePosition"])] == STRUCTS["TradePosition"]
    # Opened in January, when the broker's clock is two hours ahead.
    assert min(p["time_utc"] for p in positions) == "2026-01-05T10:00:00.000Z"
    orders = api.get("/api/mt5/account/alpha/orders").json()["orders"]
    assert [list(order)[: len(STRUCTS["TradeOrder"])] for order in orders] == [
        STRUCTS["TradeOrder"]
    ]
    assert orders[0]["time_setup_utc"] == "2026-01-05T11:00:00.000Z"
    assert orders[0]["time_done_utc"] is None


def test_a_symbol_filters(api: Any) -> None:
    path = "/api/mt5/account/alpha/positions"
    assert {p["symbol"] for p in api.get(path, symbol="XAUUSD").json()["positions"]} == {"XAUUSD"}
    assert api.get(path, symbol="NOPE").json()["positions"] == []
    assert api.get(path, symbol="a\x00b").status_code == 422


def test_a_snapshot_is_of_one_turn(api: Any) -> None:
    body = api.get("/api/mt5/account/alpha/snapshot", fresh=1).json()
    floating = sum(position["profit"] + position["swap"] for position in body["positions"])
    assert body["account"]["equity"] == pytest.approx(body["account"]["balance"] + floating)
    assert len(body["orders"]) == 1


@pytest.mark.parametrize("route", ["account", "positions", "orders"])
def test_the_header_form_is_the_same(api: Any, route: str) -> None:
    headers = api.headers() | {"X-Account-ID": "alpha"}
    by_header = api.client.get(f"/api/mt5/{route}", headers=headers).json()
    path = "info" if route == "account" else route
    by_path = api.get(f"/api/mt5/account/alpha/{path}").json()
    key = route
    assert list(by_header[key]) == list(by_path[key])
    assert by_header["meta"]["as_of"] == by_path["meta"]["as_of"]


def test_what_is_young_enough_comes_from_the_cache_and_fresh_from_the_terminal(api: Any) -> None:
    path = "/api/mt5/account/alpha/info"
    fresh = api.get(path, fresh=1).json()["meta"]
    assert fresh["source"] == "terminal"
    cached = api.get(path).json()["meta"]
    assert cached["source"] == "cache"
    assert cached["as_of"] == fresh["as_of"]
    assert cached["age_ms"] >= 0
    assert api.get(path, max_age_ms=0).json()["meta"]["source"] == "terminal"


def test_accounts_that_share_a_terminal_never_mix(api: Any) -> None:
    logins = {"alpha": 1001, "beta": 1002, "gamma": 1003}

    def read(number: int) -> tuple[int, int]:
        account_id = list(logins)[number % 3]
        body = api.get(f"/api/mt5/account/{account_id}/snapshot", fresh=1).json()
        return logins[account_id], body["account"]["login"]

    with ThreadPoolExecutor(8) as pool:
        assert all(asked == got for asked, got in pool.map(read, range(120)))


def test_history_pages_through_everything_once(api: Any) -> None:
    path = "/api/mt5/account/alpha/history/deals"
    span = {"from": "2025-12-01T00:00:00Z", "to": "2026-12-31"}
    whole = api.get(path, limit=1000, **span).json()
    assert whole["next_cursor"] is None
    assert len(whole["deals"]) == 1 + 2 + 12
    tickets = []
    cursor: dict[str, str] = {}
    while True:
        page = api.get(path, limit=4, **span, **cursor).json()
        tickets += [deal["ticket"] for deal in page["deals"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert tickets == [deal["ticket"] for deal in whole["deals"]]
    closed = api.get("/api/mt5/account/alpha/history/orders", limit=1000, **span).json()["orders"]
    assert len(closed) == 2 + 12
    february = {"from": "2026-02-01", "to": "2026-02-02", "limit": 1000}
    assert len(api.get(path, **february).json()["deals"]) == 2


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "many"},
        {"from": "yesterday"},
        {"from": "1e400"},
        {"from": "2026-02-02", "to": "2026-02-01"},
        {"cursor": "!!!"},
        {"cursor": "LTE6LTE"},
        {"symbol": "\x00"},
    ],
)
def test_a_bad_page_is_refused(api: Any, params: dict[str, Any]) -> None:
    answer = api.get("/api/mt5/account/alpha/history/deals", **params)
    assert answer.status_code == 422
    assert answer.json()["code"] == "INVALID_PARAMETERS"


def test_a_terminal_killed_in_a_call_is_unavailable_and_then_serves(api: Any) -> None:
    path = "/api/mt5/account/alpha/info"
    terminal_id = api.get(path, fresh=1).json()["meta"]["terminal_id"]
    number = list(api.simulated.terminals).index(terminal_id) + 1

    def pid() -> int:
        return next(int(one["pid"]) for one in api.simulated.states() if one["n"] == number)

    killed = pid()
    # Frozen first, so that the kill surely comes while the call is in the terminal.
    freeze(killed)
    with ThreadPoolExecutor(1) as pool:
        caught = pool.submit(api.get, path, fresh=1)
        while not call_under_way(terminal_id):
            assert not caught.done()
        os.kill(killed, signal.SIGKILL)
        answer = caught.result()
    assert answer.status_code == 503
    assert answer.json()["code"] == "TERMINAL_UNAVAILABLE"
    assert answer.json()["retry_after_s"] > 0
    assert answer.headers["Retry-After"]
    state = api.get("/api/mt5/account/alpha").json()["account"]
    assert state["state"] == "terminal_unavailable"
    assert state["last_error"]["code"] == "TERMINAL_UNAVAILABLE"
    # The restart is the supervisor's; nothing of ours is restarted.
    assert api.simulated.control.post(f"/terminals/{number}/restart").status_code == 200
    assert pid() != killed
    # A refresh may have failed meanwhile: then the terminal is tried before it is used again.
    wait_for(lambda: api.get(path, fresh=1).is_success, "the terminal does not serve again")
    assert api.get(path, fresh=1).json()["account"]["login"] == 1001
    assert api.get("/api/mt5/account/alpha").json()["account"]["state"] == "connected"


def test_a_read_under_way_does_not_undo_a_disconnect(api: Any) -> None:
    path = "/api/mt5/account/gamma/info"
    terminal_id = api.get(path, fresh=1).json()["meta"]["terminal_id"]
    number = list(api.simulated.terminals).index(terminal_id) + 1
    pid = next(int(one["pid"]) for one in api.simulated.states() if one["n"] == number)
    freeze(pid)
    with ThreadPoolExecutor(1) as pool:
        caught = pool.submit(api.get, path, fresh=1)
        while not call_under_way(terminal_id):
            assert not caught.done()
        assert api.post("/api/mt5/disconnect", {"account_id": "gamma"}).status_code == 200
        os.kill(pid, signal.SIGKILL)
        assert caught.result().status_code == 409
    assert api.get("/api/mt5/account/gamma").json()["account"]["state"] == "disconnected"
    assert api.get(path, fresh=1).status_code == 409
    assert api.simulated.control.post(f"/terminals/{number}/restart").status_code == 200
    wait_for(lambda: api.connect("gamma", 1003).is_success, "the terminal does not serve again")


def call_under_way(terminal_id: str) -> bool:
    """Whether a connection of the replica, which is of this process, waits for the terminal."""
    # By type: `isinstance` would ask RPyC's proxies what they are.
    made = [each for each in gc.get_objects() if type(each) is Connection]
    return any(each._asked and each._address.terminal_id == terminal_id for each in made)


def test_metrics_name_what_the_contracts_name(api: Any) -> None:
    text = api.client.get("/metrics").text
    for name in (
        "api_request_duration_seconds_bucket",
        "api_requests_in_flight",
        "mt5_terminal_call_duration_seconds_bucket",
        "mt5_terminal_up",
        "mt5_logins_total",
        "mt5_session_switches_total",
        "mt5_wrong_account_refusals_total",
    ):
        assert name in text
    assert 'route="/api/mt5/account/{account_id}/info"' in text
    assert "alpha" not in text

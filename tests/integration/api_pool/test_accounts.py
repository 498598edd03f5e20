"""Connecting, disconnecting and listing, on a real replica."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from local_stack.embedded import RoleDsns

SERVER = "Test-Server"


@pytest.fixture(autouse=True)
def empty(api: Any, postgres: RoleDsns) -> None:
    async def wipe() -> None:
        connection = await asyncpg.connect(postgres.owner)
        await connection.execute("DELETE FROM accounts")
        await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(wipe())
    for key in api.redis.scan_iter("mt5:placements*"):
        api.redis.delete(key)
    for pattern in ("mt5:used*", "mt5:snapshot*", "mt5:occupant*", "mt5:stream_of*"):
        for key in api.redis.scan_iter(pattern):
            api.redis.delete(key)


def rows(postgres: RoleDsns, statement: str) -> list[Any]:
    async def fetch() -> list[Any]:
        connection = await asyncpg.connect(postgres.owner)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(fetch())


def test_connect_gives_the_account_and_is_idempotent(api: Any) -> None:
    for _ in range(2):
        answer = api.connect("alpha", 1001)
        assert answer.status_code == 200
        body = answer.json()
        assert body["success"] is True
        assert body["account_id"] == "alpha"
        assert body["instance_id"] == "api-1"
        assert body["account"]["login"] == 1001
        assert len(body["account"]) == 28
        assert body["meta"]["source"] == "terminal"
        assert body["terminal_id"] == body["meta"]["terminal_id"]
    listed = api.get("/api/mt5/accounts").json()
    assert listed == {
        "success": True,
        "accounts": [
            {"account_id": "alpha", "login": 1001, "server": SERVER, "state": "connected"}
        ],
    }
    detail = api.get("/api/mt5/account/alpha").json()["account"]
    assert detail["state"] == "connected"
    assert detail["last_error"] is None
    assert detail["since"].endswith("Z")


def test_a_wrong_password_is_refused_and_nothing_is_stored(api: Any, postgres: RoleDsns) -> None:
    answer = api.connect("alpha", 1001, password="wrong")
    assert answer.status_code == 403
    body = answer.json()
    assert body["code"] == "MT5_LOGIN_FAILED"
    assert body["details"]["mt5_code"] == -6
    assert "Authorization failed" in body["details"]["mt5_text"]
    assert "wrong" not in answer.text
    assert rows(postgres, "SELECT * FROM accounts") == []
    assert not list(api.redis.scan_iter("mt5:used*"))
    assert api.get("/api/mt5/account/alpha").status_code == 404


def test_wrong_new_credentials_leave_the_old_ones(api: Any) -> None:
    assert api.connect("alpha", 1001).status_code == 200
    assert api.connect("alpha", 1001, password="wrong").status_code == 403
    assert api.get("/api/mt5/account/alpha").json()["account"]["state"] == "connected"
    assert api.get("/api/mt5/account/alpha/info", fresh=1).json()["account"]["login"] == 1001


def test_new_credentials_replace_the_old_ones(api: Any) -> None:
    assert api.connect("alpha", 1001).status_code == 200
    assert api.connect("alpha", 1002).status_code == 200
    info = api.get("/api/mt5/account/alpha/info").json()
    assert info["account"]["login"] == 1002


def test_an_unknown_server_is_named(api: Any) -> None:
    answer = api.connect("alpha", 1001, server="Nowhere-Live")
    assert answer.status_code == 422
    assert answer.json()["code"] == "BROKER_UNKNOWN"
    assert answer.json()["details"]["known_servers"] == ["Silent-Server", SERVER]


def test_a_server_that_does_not_answer_is_a_broker_timeout(api: Any) -> None:
    answer = api.connect("alpha", 1001, server="Silent-Server")
    assert answer.status_code == 504
    assert answer.json()["code"] == "BROKER_TIMEOUT"
    assert answer.json()["retry_after_s"]


def test_a_login_held_under_another_id_is_told_only_after_the_broker_agreed(api: Any) -> None:
    assert api.connect("alpha", 1001).status_code == 200
    other = uuid4()
    assert api.connect("beta", 1001, user=other, password="guess").status_code == 403
    held = api.connect("beta", 1001, user=other)
    assert held.status_code == 409
    assert held.json()["code"] == "CONFLICT"


def test_an_id_of_another_user_is_not_found_whatever_one_does(api: Any) -> None:
    assert api.connect("alpha", 1001).status_code == 200
    other = uuid4()
    paths = ["", "/info", "/positions", "/orders", "/snapshot", "/history/deals", "/history/orders"]
    for path in paths:
        answer = api.get(f"/api/mt5/account/alpha{path}", other)
        assert answer.status_code == 404
        assert answer.json()["code"] == "ACCOUNT_NOT_FOUND"
        never = api.get(f"/api/mt5/account/never{path}", other)
        assert never.json()["error"].replace("never", "alpha") == answer.json()["error"]
    assert api.connect("alpha", 1002, user=other).status_code == 404
    assert api.post("/api/mt5/disconnect", {"account_id": "alpha"}, other).status_code == 404
    assert api.post("/api/ws/assign", {"account_id": "alpha"}, other).status_code == 404
    assert api.get("/api/mt5/accounts", other).json()["accounts"] == []
    # And the owner's account is as it was.
    assert api.get("/api/mt5/account/alpha/info", fresh=1).json()["account"]["login"] == 1001


def test_disconnect_ends_the_session_and_keeps_the_credentials(
    api: Any, postgres: RoleDsns
) -> None:
    assert api.connect("alpha", 1001).status_code == 200
    for _ in range(2):
        assert api.post("/api/mt5/disconnect", {"account_id": "alpha"}).json() == {"success": True}
    refused = api.get("/api/mt5/account/alpha/info")
    assert refused.status_code == 409
    assert api.get("/api/mt5/account/alpha").json()["account"]["state"] == "disconnected"
    assert api.post("/api/ws/assign", {"account_id": "alpha"}).status_code == 409
    assert rows(postgres, "SELECT encrypted_password FROM accounts")[0][0]
    assert not list(api.redis.scan_iter("mt5:used*"))
    assert api.connect("alpha", 1001).status_code == 200


def test_a_password_is_stored_only_sealed(api: Any, postgres: RoleDsns) -> None:
    assert api.connect("alpha", 1001).status_code == 200
    assert b"alpha-pass-1001" not in b"".join(
        bytes(value) if isinstance(value, bytes) else str(value).encode()
        for row in rows(postgres, "SELECT * FROM accounts")
        for value in row.values()
    )
    for key in api.redis.scan_iter("*"):
        assert b"alpha-pass-1001" not in api.redis.dump(key)


def test_two_connects_at_once_of_one_login_give_it_to_one_id(api: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = [f"same-{number}" for number in range(4)]
        codes = list(pool.map(lambda one: api.connect(one, 1003).status_code, ids))
    assert sorted(codes) == [200, 409, 409, 409]


def test_assign_gives_a_ticket_and_the_pool_runs_out(api: Any) -> None:
    for account_id, login in (("a", 1001), ("b", 1002), ("c", 1003)):
        assert api.connect(account_id, login).status_code == 200
    first = api.post("/api/ws/assign", {"account_id": "a"}).json()
    assert first["success"] is True
    assert first["websocket_url"] == (f"wss://stream.example/ws/account/a?ticket={first['ticket']}")
    assert first["instance_id"] is None
    again = api.post("/api/ws/assign", {"account_id": "a"}).json()
    assert again["ticket"] != first["ticket"]
    assert api.post("/api/ws/assign", {"account_id": "b"}).status_code == 200
    full = api.post("/api/ws/assign", {"account_id": "c"})
    assert full.status_code == 503
    assert full.json()["code"] == "SERVICE_OVERLOADED"
    assert full.headers["Retry-After"]
    assert not [key for key in api.redis.scan_iter("*") if first["ticket"].encode() in key]

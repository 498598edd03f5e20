"""Sessions on a real replica: connected, full, deleted, synced, counted, and asked by replicas."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from api_pool.forwarding import KEY_HEADER, PATH, ForwardedAnswer, ForwardedTurn
from api_pool.turns import LookTurn
from local_stack.embedded import RoleDsns
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.instants import now_ms
from mt5kit.state.keys import Keys

SERVER = "Test-Server"
TERMINALS = ("a-1", "a-2")
KEYS = Keys()
INTERNAL = {KEY_HEADER: "an-internal-key-of-this-test"}


def sql(dsn: str, statement: str) -> list[Any]:
    async def fetch() -> list[Any]:
        connection = await asyncpg.connect(dsn)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(fetch())


@pytest.fixture(autouse=True)
def empty(api: Any, postgres: RoleDsns) -> None:
    sql(postgres.owner, "DELETE FROM accounts")
    for pattern in ("mt5:placements*", "mt5:used*", "mt5:snapshot*"):
        for key in api.redis.scan_iter(pattern):
            api.redis.delete(key)


def ghosts(api: Any, terminal_id: str, number: int, idle_s: float = 0) -> None:
    """Place so many accounts that nobody has."""
    for name in (f"ghost-{terminal_id}-{one}" for one in range(number)):
        api.redis.zadd(KEYS.sessions("api", terminal_id), {name: now_ms() - idle_s * 1000})
        api.redis.hset(KEYS.placements("api"), name, terminal_id)


def placed(api: Any, account_id: str) -> str | None:
    terminal_id = api.redis.hget(KEYS.placements("api"), account_id)
    return None if terminal_id is None else str(terminal_id.decode())


def until(condition: Callable[[], Any]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not come to be")


def delete(api: Any, account_id: str, user: Any = None) -> Any:
    return api.client.delete(f"/api/mt5/account/{account_id}", headers=api.headers(user))


def test_unproven_credentials_are_tried_on_the_emptiest_terminal(api: Any) -> None:
    ghosts(api, "a-1", 10)
    assert api.connect("one", 1001).json()["terminal_id"] == "a-2"
    ghosts(api, "a-2", 19)
    # A known account proves new ones where it is emptiest too, and is served there.
    assert api.connect("one", 1002).json()["terminal_id"] == "a-1"
    assert placed(api, "one") == "a-1"
    read = api.get("/api/mt5/account/one/info", fresh=1).json()
    assert (read["account"]["login"], read["meta"]["terminal_id"]) == (1002, "a-1")


def test_a_full_pool_says_when_it_may_have_room_and_keeps_nothing(
    api: Any, postgres: RoleDsns
) -> None:
    ghosts(api, "a-1", 20, idle_s=100)
    ghosts(api, "a-2", 20, idle_s=40)
    full = api.connect("two", 1001)
    assert full.status_code == 503
    body = full.json()
    assert body["code"] == "SERVICE_OVERLOADED"
    # The longest unused session gives way 300 s after its last use.
    assert 150 < body["retry_after_s"] <= 200
    assert int(full.headers["Retry-After"]) >= body["retry_after_s"]
    assert placed(api, "two") is None
    assert sql(postgres.owner, "SELECT * FROM accounts") == []
    figures = capacity(api)
    assert (figures["api_sessions"], figures["api_max_sessions"]) == (40, 40)
    assert figures["api_pool_utilization"] == 100
    ghosts(api, "a-1", 20, idle_s=301)
    assert api.connect("two", 1001).status_code == 200
    assert capacity(api)["api_sessions"] == 40


def capacity(api: Any) -> dict[str, Any]:
    answer = api.client.get("/api/metrics/capacity", headers=api.headers())
    assert answer.status_code == 200
    figures: dict[str, Any] = answer.json()
    return figures


def test_capacity_counts_sessions_and_streams(api: Any) -> None:
    before = capacity(api)
    assert api.connect("three", 1001).status_code == 200
    assert api.post("/api/ws/assign", {"account_id": "three"}).status_code == 200
    figures = capacity(api)
    assert figures == {
        "success": True,
        "api_pool_utilization": 2.5,
        "current_replicas": 1,
        "api_sessions": 1,
        "api_max_sessions": 40,
        "ws_accounts": before["ws_accounts"] + 1,
        "ws_max_accounts": 2,
        "ws_replicas": 0,
    }
    assert delete(api, "three").status_code == 200


def test_an_account_being_connected_anew_says_so_and_goes_back(api: Any) -> None:
    assert api.connect("four", 1001).status_code == 200

    def state() -> str:
        return str(api.get("/api/mt5/account/four").json()["account"]["state"])

    with ThreadPoolExecutor(1) as pool:
        silent = pool.submit(lambda: api.connect("four", 1002, server="Silent-Server"))
        until(lambda: state() == "connecting")
        assert not silent.done()
        assert silent.result().status_code == 504
    assert state() == "connected"
    assert api.get("/api/mt5/account/four/info", fresh=1).json()["account"]["login"] == 1001
    assert api.connect("four", 1001, password="wrong").status_code == 403
    assert state() == "connected"


def test_a_deleted_account_is_gone_but_for_its_audit_row(api: Any, postgres: RoleDsns) -> None:
    answer = api.connect("five", 1003)
    assert answer.status_code == 200
    terminal_id = answer.json()["terminal_id"]
    assert api.get("/api/mt5/account/five/history/deals").status_code == 200
    assert delete(api, "five", uuid4()).status_code == 404
    told = api.redis.pubsub()
    told.subscribe(KEYS.control("five"))
    assert told.get_message(timeout=5)["type"] == "subscribe"
    assert delete(api, "five").json() == {"success": True}
    assert told.get_message(timeout=5)["data"] == b"deleted"
    told.close()
    paths = ("", "/info", "/snapshot", "/history/deals")
    for path in paths:
        gone = api.get(f"/api/mt5/account/five{path}")
        assert (gone.status_code, gone.json()["code"]) == (404, "ACCOUNT_NOT_FOUND")
    assert delete(api, "five").status_code == 404
    assert placed(api, "five") is None
    scheduler = api.served.context.fleet.owned[terminal_id].scheduler
    until(lambda: scheduler.current != "five")
    # Who asked for it how often is told for 3 s, also of an account that is none.
    until(lambda: not [key for key in api.redis.scan_iter("*") if b"five" in key])
    (row,) = sql(postgres.owner, "SELECT * FROM audit_log WHERE target = 'five'")
    assert (row["actor"], row["action"]) == ("test", "account.delete")
    detail = msgspec.json.decode(row["detail"])
    assert detail == {"user_id": str(api.user), "login": 1003, "server": SERVER}
    assert sql(postgres.owner, "SELECT 1 FROM accounts") == []


def test_a_sync_job_reads_everything_and_is_its_users_alone(api: Any) -> None:
    assert api.connect("six", 1001).status_code == 200
    begun = api.post("/api/mt5/account/six/sync", {"history_days": 3650})
    assert begun.status_code == 202
    path = f"/api/mt5/sync/{begun.json()['sync_id']}"
    assert api.get(path, uuid4()).status_code == 404
    until(lambda: api.get(path).json()["status"] == "done")
    done = api.get(path).json()
    assert (done["account_id"], done["progress"], done["error"]) == ("six", 100, None)
    deals = api.get(
        "/api/mt5/account/six/history/deals",
        limit=1000,
        **{"from": "2020-01-01", "to": "2030-01-01"},
    ).json()["deals"]
    assert done["deals"] == len(deals) > 0
    assert done["orders"] > 0
    assert api.get(f"/api/mt5/sync/{uuid4()}").status_code == 404
    assert api.get("/api/mt5/sync/none-of-ours").status_code == 422


@pytest.mark.parametrize("days", [0, 3651, -1, "30", 1.5, None, True])
def test_a_sync_reads_between_a_day_and_ten_years(api: Any, days: object) -> None:
    assert api.connect("seven", 1001).status_code == 200
    answer = api.post("/api/mt5/account/seven/sync", {"history_days": days})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_PARAMETERS")


def test_a_sync_is_of_ones_own_connected_account(api: Any) -> None:
    assert api.connect("eight", 1001).status_code == 200
    assert api.post("/api/mt5/account/eight/sync", {}, uuid4()).status_code == 404
    assert api.post("/api/mt5/disconnect", {"account_id": "eight"}).status_code == 200
    assert api.post("/api/mt5/account/eight/sync", {}).status_code == 409
    assert placed(api, "eight") is None


def test_history_is_kept_for_as_long_as_the_caller_takes_it(api: Any) -> None:
    assert api.connect("nine", 1001).status_code == 200
    path = "/api/mt5/account/nine/history/deals"
    span = {"from": "2025-12-01", "to": "2026-06-01", "limit": 5}
    first = api.get(path, **span).json()
    assert first["meta"]["source"] == "terminal"
    until(lambda: api.get(path, **span).json()["meta"]["source"] == "cache")
    kept = api.get(path, **span).json()
    assert kept["deals"] == first["deals"]
    assert kept["next_cursor"] == first["next_cursor"]
    assert kept["meta"]["as_of"] >= first["meta"]["as_of"]
    for other in ({"fresh": 1}, {"max_age_ms": 0}, {"cursor": first["next_cursor"]}):
        assert api.get(path, **span, **other).json()["meta"]["source"] == "terminal"
    assert api.get(path, **span, max_age_ms=-1).status_code == 422
    # Pages of other credentials answer nobody.
    assert api.connect("nine", 1002).status_code == 200
    assert api.get(path, **span).json()["meta"]["source"] == "terminal"


@pytest.mark.parametrize(
    "headers",
    [{}, {KEY_HEADER: "guess"}, {KEY_HEADER: ""}, {"X-API-Key": "a-service-key-of-this-test"}],
)
def test_only_replicas_ask_for_turns(api: Any, headers: dict[str, str]) -> None:
    answer = api.client.post(PATH, content=asked("a-1"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")


def test_an_internal_key_opens_nothing_else(api: Any) -> None:
    assert api.client.get("/api/mt5/accounts", headers=INTERNAL).status_code == 401


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"terminal_id":"a-1","deadline_s":1,"turn":{"type":"shutdown"}}', b"\xff"],
)
def test_what_is_no_turn_is_refused(api: Any, body: bytes) -> None:
    answer = api.client.post(PATH, content=body, headers=INTERNAL)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_PARAMETERS")


def test_a_forwarded_turn_is_taken_here_or_not_at_all(api: Any) -> None:
    terminal_id = api.connect("ten", 1001).json()["terminal_id"]
    told = forwarded(api, asked(terminal_id))
    assert told.error is None
    assert told.taken is not None
    assert msgspec.json.decode(told.taken.payload)["account"]["login"] == 1001
    # A terminal of another replica, were there one: the owner alone takes turns.
    lease = {"owner": "api-9", "token": 1, "url": "http://127.0.0.1:1"}
    api.redis.hset(KEYS.lease("a-9"), mapping=lease)
    moved = forwarded(api, asked("a-9"))
    api.redis.delete(KEYS.lease("a-9"))
    assert moved.taken is None
    assert moved.error is not None
    assert moved.error.kind == "TerminalMoved"
    # Not "cannot be reached", which would be what it learnt from trying to pass it on.
    assert moved.error.message == "terminal a-9 is not held by this replica"
    # Another identity than the stored one gets no look of the account.
    wrong = forwarded(api, asked(terminal_id, login=1002))
    assert wrong.taken is None
    assert wrong.error is not None
    assert wrong.error.kind == "WrongAccount"


def asked(terminal_id: str, login: int = 1001) -> bytes:
    turn = LookTurn("ten", AccountIdentity(login, SERVER), 0)
    return msgspec.json.encode(ForwardedTurn(terminal_id, 5, turn))


def forwarded(api: Any, body: bytes) -> ForwardedAnswer:
    answer = api.client.post(PATH, content=body, headers=INTERNAL)
    assert answer.status_code == 200
    return msgspec.json.decode(answer.content, type=ForwardedAnswer)

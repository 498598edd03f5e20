"""Redis or Postgres away: owners keep serving, and readiness tells."""

import os
import signal
from typing import Any

import pytest

from local_stack.embedded import EmbeddedRedis


@pytest.fixture(scope="module", autouse=True)
def connected(api: Any) -> None:
    assert api.connect("alpha", 1001).status_code == 200


def test_readiness_names_what_answers(api: Any) -> None:
    ready = api.client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["dependencies"] == {"redis": "ok", "postgres": "ok"}


def test_without_redis_an_owner_still_reads_its_terminals(
    api: Any, redis_server: EmbeddedRedis
) -> None:
    path = "/api/mt5/account/alpha/snapshot"
    assert api.get(path, fresh=1).status_code == 200
    redis_server.stop()
    try:
        for source, age in (("cache", {}), ("terminal", {"fresh": 1})):
            answer = api.get(path, **age)
            assert answer.status_code == 200
            assert answer.json()["meta"]["source"] == source
            assert answer.json()["account"]["login"] == 1001
        refused = api.post("/api/ws/assign", {"account_id": "alpha"})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        ready = api.client.get("/health/ready")
        assert ready.status_code == 200
        assert "does not answer" in ready.json()["dependencies"]["redis"]
    finally:
        redis_server.start()
    assert api.get(path, fresh=1).status_code == 200


def test_a_state_store_that_hangs_does_not_stop_an_owner(
    api: Any, redis_server: EmbeddedRedis
) -> None:
    path = "/api/mt5/account/alpha/snapshot"
    assert redis_server.pid is not None
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            answer = api.get(path, fresh=1)
            assert answer.status_code == 200
            assert answer.json()["account"]["login"] == 1001
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    until_answered(api)
    assert api.get(path, fresh=1).status_code == 200


def until_answered(api: Any) -> None:
    for _ in range(200):
        if api.client.get("/health/ready").json()["dependencies"]["redis"] == "ok":
            return
    raise AssertionError("Redis does not answer again")

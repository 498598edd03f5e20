"""Whatever is sent, the answer has our shape and is never a 500."""

import json
import socket
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

SHAPE = {"success", "error", "code", "details", "retry_after_s", "request_id"}
GOOD = {
    "user_id": "5d6c2ad3-6a5b-4c05-90a5-111111111111",
    "account_id": "alpha",
    "login": 1,
    "password": "x",
    "server": "Test-Server",
}


def check_shape(answer: httpx.Response, status: int | None = None) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert set(body) == SHAPE
    assert body["success"] is False
    assert isinstance(body["error"], str)
    assert body["error"]
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert answer.status_code < 500 or body["code"] != "INTERNAL"
    if status is not None:
        assert answer.status_code == status, body
    return body


def test_no_key_is_unauthenticated_even_on_unknown_routes(api: Any) -> None:
    for headers in ({}, {"X-API-Key": "guess"}, {"X-API-Key": "x" * 5000}):
        for path in ("/api/mt5/accounts", "/api/nowhere", "/docs", "/api/admin/terminals/stats"):
            body = check_shape(api.client.get(path, headers=headers), 401)
            assert body["code"] == "UNAUTHENTICATED"


def test_admin_paths_need_the_admin_key_too(api: Any) -> None:
    path = "/api/admin/terminals/stats"
    for extra in ({}, {"X-Admin-API-Key": "guess"}):
        body = check_shape(api.client.get(path, headers=api.headers() | extra), 403)
        assert body["code"] == "FORBIDDEN"
    admin = api.headers() | {"X-Admin-API-Key": "an-admin-key-of-this-test"}
    check_shape(api.client.get(path, headers=admin), 404)


def test_health_needs_no_key(api: Any) -> None:
    health = api.client.get("/api/health").json()
    assert health == {
        "status": "ok",
        "version": "0.1.0",
        "total_terminals": 0,
        "connected_terminals": 0,
        "terminals": {},
    }
    assert api.client.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/nowhere", 404),
        ("GET", "/", 404),
        ("GET", "/api/mt5/accounts/", 404),
        ("DELETE", "/api/mt5/connect", 405),
        ("PUT", "/api/mt5/accounts", 405),
        ("BREW", "/api/mt5/accounts", 405),
        ("GET", "/api/mt5/account/%00/info", 422),
        ("GET", "/api/mt5/account/a%20b/info", 422),
        ("GET", "/api/mt5/account/" + "a" * 65 + "/info", 422),
        ("GET", "/api/mt5/account/%F0%9F%92%A9/info", 422),
        ("GET", "/api/mt5/account/%ff%fe/info", 422),
        ("GET", "/api/mt5/account/alpha/info?max_age_ms=-1", 422),
        ("GET", "/api/mt5/account/alpha/info?max_age_ms=99999999999999999999", 422),
        ("GET", "/api/mt5/account/alpha/info?fresh=perhaps", 422),
        ("GET", "/api/mt5/account/alpha/positions?symbol=%00", 422),
        ("GET", "/api/mt5/account/alpha/positions?symbol=%ED%A0%80", 404),
    ],
)
def test_odd_requests(api: Any, method: str, path: str, status: int) -> None:
    check_shape(api.client.request(method, path, headers=api.headers()), status)


@pytest.mark.parametrize(
    "headers",
    [{"X-User-ID": "nobody"}, {"X-User-ID": ""}, {}, {"X-User-ID": "5d6c2ad3"}],
)
def test_a_user_must_be_named_by_a_uuid(api: Any, headers: dict[str, str]) -> None:
    keyed = {"X-API-Key": api.headers()["X-API-Key"]} | headers
    check_shape(api.client.get("/api/mt5/accounts", headers=keyed), 422)


@pytest.mark.parametrize(
    "change",
    [
        {"login": 2**63},
        {"login": 2**70},
        {"login": 0},
        {"login": -5},
        {"login": "1001"},
        {"login": 1001.5},
        {"login": True},
        {"login": None},
        {"password": ""},
        {"password": "a\x00b"},
        {"password": "x" * 129},
        {"password": ["x"]},
        {"server": ""},
        {"server": "a\x00b"},
        {"server": "a\nb"},
        {"server": " padded"},
        {"server": "s" * 200},
        {"account_id": "a b"},
        {"account_id": ""},
        {"account_id": "a" * 65},
        {"account_id": "a\x00"},
        {"user_id": "nobody"},
        {"surprise": 1},
    ],
)
def test_a_connect_with_a_wrong_field_is_refused(api: Any, change: dict[str, Any]) -> None:
    headers = {"X-API-Key": api.headers()["X-API-Key"]}
    answer = api.client.post("/api/mt5/connect", json=GOOD | change, headers=headers)
    body = check_shape(answer, 422)
    assert body["code"] == "INVALID_PARAMETERS"
    for value in change.values():
        if isinstance(value, str) and len(value) > 8:
            assert value not in answer.text


@pytest.mark.parametrize("missing", [key for key in GOOD if key != "user_id"])
def test_a_connect_without_a_field_is_refused(api: Any, missing: str) -> None:
    body = {key: value for key, value in GOOD.items() if key != missing}
    check_shape(api.post("/api/mt5/connect", body), 422)


def test_an_account_in_the_header_must_be_that_of_the_path(api: Any) -> None:
    headers = api.headers() | {"X-Account-ID": "beta"}
    check_shape(api.client.get("/api/mt5/account/alpha", headers=headers), 422)


def test_a_refused_method_names_those_allowed(api: Any) -> None:
    answer = api.client.put("/api/mt5/accounts", headers=api.headers())
    check_shape(answer, 405)
    assert answer.headers["Allow"] == "GET"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "is not JSON"),
        (b'"text"', "send Content-Type: application/json"),
        (b'{"account_id": "a b", "login": 1, "password": "x", "server": "s"}', "may not have"),
        (b'{"account_id": "a", "login": 1, "password": "\\u0000", "server": "s"}', "no NUL"),
        (b'{"account_id": "a", "login": 1, "password": "\\ud800", "server": "s"}', "Unicode"),
    ],
)
def test_refusals_speak_to_a_person(api: Any, raw: bytes, said: str) -> None:
    headers = api.headers() | {"Content-Type": "application/json"}
    answer = api.client.post("/api/mt5/connect", content=raw, headers=headers)
    body = check_shape(answer, 422)
    assert said in body["error"]
    assert "pattern" not in body["error"]
    assert body["details"]["fields"]


def test_users_in_header_and_body_must_agree(api: Any) -> None:
    body = GOOD | {"user_id": str(uuid4())}
    assert "differ" in check_shape(api.post("/api/mt5/connect", body), 422)["error"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"account_id": "\\ud800", "login": 1, "password": "x", "server": "s"}',
        b'{"account_id": "a", "login": 1, "password": "\\ud800", "server": "s"}',
        b'{"account_id": "a", "login": 1, "password": "x", "server": "\\udfff"}',
        b"[" * 20_000,
        b'{"login": ' + b"9" * 20_000 + b"}",
        b'{"login": NaN}',
    ],
)
def test_garbage_bodies_are_refused(api: Any, raw: bytes) -> None:
    headers = api.headers() | {"Content-Type": "application/json"}
    for path in ("/api/mt5/connect", "/api/mt5/disconnect", "/api/ws/assign"):
        check_shape(api.client.post(path, content=raw, headers=headers), 422)


@pytest.mark.parametrize("size", [64 * 1024 + 1, 10 * 1024 * 1024])
def test_large_bodies_are_refused(api: Any, size: int) -> None:
    body = check_shape(
        api.client.post("/api/mt5/connect", content=b"x" * size, headers=api.headers()), 413
    )
    assert body["code"] == "PAYLOAD_TOO_LARGE"
    assert api.client.get("/api/health").status_code == 200


def test_a_chunked_body_has_the_same_limit(api: Any) -> None:
    def chunks() -> Any:
        for _ in range(100):
            yield b"y" * 4096

    answer = api.client.post("/api/mt5/connect", content=chunks(), headers=api.headers())
    check_shape(answer, 413)


def test_request_ids_are_kept_when_they_are_honest(api: Any) -> None:
    for given_id, kept in (("abc-DEF_1", True), ("a b", False), ("x" * 65, False), ("", False)):
        headers = api.headers() | {"X-Request-ID": given_id}
        answer = api.client.get("/api/nowhere", headers=headers)
        assert (answer.headers["X-Request-ID"] == given_id) is kept
        check_shape(answer, 404)


def test_a_socket_on_an_api_path_is_refused_in_our_shape(api: Any) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{api.served.port}/api/mt5/accounts")
    assert refused.value.response.status_code == 404
    assert set(json.loads(refused.value.response.body)) == SHAPE


def test_bytes_that_are_no_http_do_not_harm(api: Any) -> None:
    with socket.create_connection(("127.0.0.1", api.served.port), 5) as raw:
        raw.sendall(b"\x16\x03\x01\x00\xa5 not http\r\n\r\n")
        head, _, body = raw.recv(4000).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert set(json.loads(body)) == SHAPE
    assert api.client.get("/api/health").status_code == 200


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner, max_size=5)
        ),
        max_leaves=12,
    )
)
def test_no_json_whatsoever_is_a_fault(api: Any, body: Any) -> None:
    headers = api.headers() | {"Content-Type": "application/json"}
    raw = json.dumps(body).encode()
    for path in ("/api/mt5/connect", "/api/mt5/disconnect", "/api/ws/assign"):
        answer = api.client.post(path, content=raw, headers=headers)
        assert answer.status_code in {404, 413, 422}, answer.text
        check_shape(answer)

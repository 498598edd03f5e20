"""The envelope around an app: ids, faults that tell nothing, labels that are templates."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import httpx
import orjson
import pytest
import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from mt5kit.errors import InternalFault, RateLimited
from mt5kit.telemetry.errors_http import failure_response, install_failure_handlers
from mt5kit.telemetry.http import (
    ACCOUNT_KEY,
    USER_KEY,
    Answered,
    Envelope,
    mark_turn_of,
    service_routes,
)
from mt5kit.telemetry.http_metrics import HttpMetrics
from mt5kit.telemetry.logs import configure_logs


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def client(registry: CollectorRegistry) -> AsyncIterator[httpx.AsyncClient]:
    state = {"draining": False}
    app = FastAPI()

    @app.get("/thing/{name}")
    async def thing(name: str) -> dict[str, str]:
        if name == "bug":
            raise RuntimeError("password=hunter2")
        if name == "fault":
            raise InternalFault("the table is on fire", details={"table": "accounts"})
        if name == "often":
            raise RateLimited("slow down", retry_after_s=1.2)
        state["draining"] = name == "drain"
        return {"name": name}

    async def readiness() -> dict[str, object]:
        return dict(state)

    app.include_router(service_routes(registry, readiness))
    install_failure_handlers(app)
    app.add_middleware(Envelope, metrics=HttpMetrics(registry))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("name", ["bug", "fault"])
async def test_a_fault_of_ours_tells_only_its_id(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/thing/{name}", headers={"X-Request-ID": "mine-1"})
    assert answer.status_code == 500
    assert answer.headers["X-Request-ID"] == "mine-1"
    assert answer.json() == {
        "success": False,
        "error": "something went wrong on our side",
        "code": "INTERNAL",
        "details": {},
        "retry_after_s": None,
        "request_id": "mine-1",
    }


async def test_a_fault_of_ours_is_logged_with_its_cause(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as events:
        await client.get("/thing/fault")
        await client.get("/thing/bug")
    errors = [event for event in events if event["log_level"] == "error"]
    assert [event["event"] for event in errors] == ["internal_fault", "unhandled_fault"]
    assert all(event["exc_info"] for event in errors)


async def test_a_request_cut_by_the_stop_is_told_so() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    with pytest.raises(asyncio.CancelledError):
        await Envelope(app, HttpMetrics(CollectorRegistry()))(scope, receive, send)
    assert sent[0]["status"] == 503
    assert orjson.loads(sent[1]["body"])["code"] == "SERVICE_OVERLOADED"


async def test_half_a_body_is_no_request(registry: CollectorRegistry) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the app was asked")

    parts: list[Message] = [
        {"type": "http.request", "body": b'{"a"', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError("an answer was sent")

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": []}
    await Envelope(app, HttpMetrics(registry))(scope, receive, send)


async def test_retry_after_is_a_header_in_whole_seconds(client: httpx.AsyncClient) -> None:
    answer = await client.get("/thing/often")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
    assert answer.json()["retry_after_s"] == 1.2


async def test_labels_are_templates_and_unknown_paths_share_one(
    client: httpx.AsyncClient, registry: CollectorRegistry
) -> None:
    for path in ("/thing/secret-name", "/no/such/path", "/nor/this"):
        await client.get(path)
    await client.request("PURGE", "/thing/x")
    text = (await client.get("/metrics")).text
    assert 'route="/thing/{name}",status="200"' in text
    assert 'method="any",route="unmatched",status="404"' in text
    assert "secret-name" not in text
    assert "/no/such" not in text
    assert registry.get_sample_value("api_requests_in_flight") == 0


async def test_readiness_tells_of_draining(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/ready")).status_code == 200
    await client.get("/thing/drain")
    answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "draining")
    assert (await client.get("/health/live")).status_code == 200


USER = UUID(int=5)


async def thing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as its path says, having named a user and an account."""
    scope[USER_KEY], scope[ACCOUNT_KEY] = USER, "acc-1"
    mark_turn_of(scope)
    structlog.get_logger("thing").info("within")
    if scope["path"] == "/bug":
        raise RuntimeError("bug")
    if scope["path"] == "/busy":
        await failure_response(RateLimited("slow down"), "x")(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask(envelope: Envelope, path: str = "/x", method: str = "GET", **more: object) -> Scope:
    async def receive() -> Message:
        raise AssertionError("a body was waited for")

    async def send(message: Message) -> None:
        pass

    headers = [(b"x-request-id", b"mine-1")]
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": headers} | more
    await envelope(scope, receive, send)
    return scope


async def test_a_get_without_a_length_is_not_asked_for_its_body() -> None:
    envelope = Envelope(thing, HttpMetrics(CollectorRegistry()))
    await ask(envelope)
    for name in (b"content-length", b"transfer-encoding"):
        headers = [(b"x-request-id", b"mine-1"), (name, b"5")]
        with structlog.testing.capture_logs() as events:
            await ask(envelope, headers=headers)
        # Whoever says that there is a body is waited for.
        assert [event["event"] for event in events] == ["unhandled_fault", "request"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/x", 204, None), ("/busy", 429, "RATE_LIMITED"), ("/bug", 500, "INTERNAL")],
)
async def test_the_hook_is_told_of_every_answer(path: str, status: int, code: str | None) -> None:
    told: list[Answered] = []
    await ask(Envelope(thing, HttpMetrics(CollectorRegistry()), told.append), path)
    [answered] = told
    assert answered.elapsed_ms >= 0
    expected = Answered(
        request_id="mine-1",
        method="GET",
        route="unmatched",
        status=status,
        code=code,
        turn=True,
        elapsed_ms=answered.elapsed_ms,
        account_id="acc-1",
        user_id=USER,
    )
    assert answered == expected


async def test_a_hook_that_fails_costs_no_answer() -> None:
    def fail(_answered: Answered) -> None:
        raise RuntimeError("the log is full")

    with structlog.testing.capture_logs() as events:
        await ask(Envelope(thing, HttpMetrics(CollectorRegistry()), fail))
    assert [event["event"] for event in events] == ["within", "request", "answer_not_recorded"]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs(stream)
    yield stream
    structlog.reset_defaults()
    logging.basicConfig(handlers=[], force=True)


async def test_the_request_line_is_as_every_other_line(stream: io.StringIO) -> None:
    await ask(Envelope(thing, HttpMetrics(CollectorRegistry())))
    within, request = (orjson.loads(line) for line in stream.getvalue().splitlines())
    assert within == {
        "event": "within",
        "request_id": "mine-1",
        "level": "info",
        "timestamp": within["timestamp"],
    }
    told = {key: request.pop(key) for key in ("method", "route", "status", "ms", "turn")}
    assert told | {"ms": 0} == {
        "method": "GET",
        "route": "unmatched",
        "status": 204,
        "ms": 0,
        "turn": "yes",
    }
    assert list(request) == list(within)
    assert request == within | {"event": "request", "timestamp": request["timestamp"]}
    assert len(request["timestamp"]) == len(within["timestamp"]) == 27


async def test_the_request_line_obeys_the_level() -> None:
    stream = io.StringIO()
    configure_logs(stream, level=logging.WARNING)
    try:
        await ask(Envelope(thing, HttpMetrics(CollectorRegistry())))
    finally:
        structlog.reset_defaults()
        logging.basicConfig(handlers=[], force=True)
    assert stream.getvalue() == ""


async def test_the_id_is_bound_no_longer_than_its_request() -> None:
    await ask(Envelope(thing, HttpMetrics(CollectorRegistry())))
    assert structlog.contextvars.get_contextvars() == {}

"""Who gets in, how often, and what the cookie is worth. No NiceGUI here."""

import logging
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.types import Message, Scope

from console.gate import COOKIE, SessionGate
from console.sessions import SESSION_LIFETIME_S, Sessions
from console.settings import ConsoleSettings
from console.sign_in import SignIn, sign_in_routes
from console.throttle import LONGEST_WAIT_S, SignInThrottle
from mt5kit.telemetry.errors_http import install_failure_handlers
from mt5kit.telemetry.http import Envelope
from mt5kit.telemetry.http_metrics import HttpMetrics

TOKEN = "printed-token-of-the-link"
PASSWORD = "the operator's password"
BROWSER = {"accept": "text/html", "host": "testserver"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def settings_of(*, token: str | None = None, password: str | None = None) -> ConsoleSettings:
    return ConsoleSettings(
        api_url="http://127.0.0.1:9",
        api_key=SecretStr("key"),
        user_id=uuid4(),
        operator_password=SecretStr(password) if password else None,
        one_time_token=SecretStr(token) if token else None,
        session_secret=SecretStr("a secret of the sessions"),
    )


def app_of(config: ConsoleSettings, clock: Callable[[], float]) -> FastAPI:
    """The sign-in, the gate, and a page behind it."""
    sessions = Sessions(config.session_secret.get_secret_value(), clock=clock)
    of = SignIn.from_settings(config, sessions)
    sign_in = SignIn(of.sessions, of.token, of.password, of.by_link, SignInThrottle(clock))
    app = FastAPI()
    app.include_router(sign_in_routes(sign_in))

    @app.get("/console/")
    async def page() -> str:
        return "the page"

    install_failure_handlers(app)
    app.add_middleware(SessionGate, sessions=sessions)
    app.add_middleware(Envelope, metrics=HttpMetrics(CollectorRegistry()))
    return app


def browser(app: FastAPI, address: str = "192.0.2.7") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=BROWSER)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_the_link_works_once(clock: Clock) -> None:
    app = app_of(settings_of(token=TOKEN), clock)
    async with browser(app) as first, browser(app) as second:
        answer = await first.get(f"/console/login?token={TOKEN}")
        assert answer.status_code == 200
        assert 'http-equiv="refresh"' in answer.text
        assert (await first.get("/console/")).json() == "the page"
        again = await second.get(f"/console/login?token={TOKEN}")
        assert again.status_code == 401
        assert "has been used" in again.text
        assert "set-cookie" not in again.headers
        assert (await second.get("/console/")).status_code == 303


async def test_a_head_request_does_not_spend_the_link(clock: Clock) -> None:
    async with browser(app_of(settings_of(token=TOKEN), clock)) as client:
        assert (await client.head(f"/console/login?token={TOKEN}")).status_code == 200
        assert (await client.get(f"/console/login?token={TOKEN}")).status_code == 200


@pytest.mark.parametrize(
    "token", ["", "x", TOKEN + "x", TOKEN[:-1], "ä\x00\udcff".encode("utf-8", "replace")]
)
async def test_another_token_is_refused(clock: Clock, token: str) -> None:
    async with browser(app_of(settings_of(token=TOKEN), clock)) as client:
        answer = await client.get("/console/login", params={"token": token})
        assert answer.status_code == 401


async def test_the_cookie_is_strict_and_hidden_from_scripts(clock: Clock) -> None:
    for scheme, secure in (("http", False), ("https", True)):
        async with browser(app_of(settings_of(token=TOKEN), clock)) as client:
            answer = await client.get(f"{scheme}://testserver/console/login?token={TOKEN}")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        assert {"HttpOnly", "SameSite=strict", "Path=/console"} <= set(cookie.split("; "))
        assert ("Secure" in cookie.split("; ")) is secure


async def test_without_a_password_there_is_no_form(clock: Clock) -> None:
    async with browser(app_of(settings_of(token=TOKEN), clock)) as client:
        assert "<form" not in (await client.get("/console/login")).text
        posted = await client.post("/console/login", data={"password": ""})
        assert posted.status_code == 403
    async with browser(app_of(settings_of(), clock)) as client:
        assert "The console is off" in (await client.get("/console/login")).text


async def test_the_password_signs_in(clock: Clock) -> None:
    async with browser(app_of(settings_of(password=PASSWORD), clock)) as client:
        page = (await client.get("/console/login")).text
        assert "<form" in page
        assert "link that was printed" not in page
        answer = await client.post("/console/login", data={"password": PASSWORD})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
        assert (await client.get("/console/")).status_code == 200


async def test_wrong_passwords_slow_their_address_down_and_no_other(clock: Clock) -> None:
    app = app_of(settings_of(password=PASSWORD), clock)
    async with browser(app) as guesser, browser(app, "192.0.2.8") as other:
        wrong = await guesser.post("/console/login", data={"password": "guess"})
        assert wrong.status_code == 401
        assert "Wrong password. Try again in 1 second." in wrong.text
        early = await guesser.post("/console/login", data={"password": PASSWORD})
        assert (early.status_code, early.headers["retry-after"]) == (429, "1")
        assert "set-cookie" not in early.headers
        assert (await other.post("/console/login", data={"password": PASSWORD})).status_code == 303
        clock.now += 1
        wrong = await guesser.post("/console/login", data={"password": "guess"})
        assert "in 2 seconds" in wrong.text
        clock.now += 2
        right = await guesser.post("/console/login", data={"password": PASSWORD})
        assert right.status_code == 303


async def test_signing_out_ends_the_session(clock: Clock) -> None:
    async with browser(app_of(settings_of(token=TOKEN), clock)) as client:
        await client.get(f"/console/login?token={TOKEN}")
        cookie = client.cookies[COOKIE]
        assert (await client.post("/console/logout")).headers["location"] == "/console/login"
        client.cookies.set(COOKIE, cookie)
        assert (await client.get("/console/")).status_code == 303


async def test_a_session_ends_by_itself(clock: Clock) -> None:
    async with browser(app_of(settings_of(token=TOKEN), clock)) as client:
        await client.get(f"/console/login?token={TOKEN}")
        clock.now += SESSION_LIFETIME_S - 1
        assert (await client.get("/console/")).status_code == 200
        clock.now += 1
        assert (await client.get("/console/")).status_code == 303


async def test_a_program_without_a_session_gets_the_common_failure(clock: Clock) -> None:
    async with browser(app_of(settings_of(token=TOKEN), clock)) as client:
        answer = await client.get("/console/_nicegui/x.js", headers={"accept": "*/*"})
    assert answer.status_code == 401
    body = answer.json()
    assert (body["success"], body["code"]) == (False, "UNAUTHENTICATED")
    assert body["request_id"] == answer.headers["x-request-id"]


async def test_a_page_of_another_host_may_not_post(clock: Clock) -> None:
    async with browser(app_of(settings_of(password=PASSWORD), clock)) as client:
        for origin, status in (("http://evil.example", 403), ("http://testserver", 303)):
            data = {"password": PASSWORD}
            answer = await client.post("/console/login", data=data, headers={"origin": origin})
            assert answer.status_code == status


async def closed_by_gate(cookie: str, origin: str | None) -> bool:
    sessions = Sessions("a secret of the sessions", clock=Clock())
    passed: list[str] = []
    sent: list[Message] = []

    async def inner(scope: Scope, _receive: object, _send: object) -> None:
        passed.append(scope["path"])

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    value = sessions.issue() if cookie == "good" else cookie
    headers = [(b"host", b"testserver"), (b"cookie", f"{COOKIE}={value}".encode())]
    headers += [(b"origin", origin.encode())] if origin else []
    scope = {"type": "websocket", "path": "/console/_nicegui_ws/socket.io/", "headers": headers}
    await SessionGate(inner, sessions)(scope, receive, send)
    assert bool(passed) is not bool(sent)
    return bool(sent)


async def test_a_socket_needs_a_session_and_this_host() -> None:
    assert not await closed_by_gate("good", "http://testserver")
    assert await closed_by_gate("bad", "http://testserver")
    assert await closed_by_gate("good", "http://evil.example")


async def test_no_secret_reaches_a_log(
    clock: Clock, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with browser(app_of(settings_of(token=TOKEN, password=PASSWORD), clock)) as client:
        await client.get(f"/console/login?token={TOKEN}")
        await client.post("/console/login", data={"password": PASSWORD})
        cookie = client.cookies[COOKIE]
    ours = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    captured = capsys.readouterr()
    everything = "".join((*ours, captured.out, captured.err))
    assert "request" in everything
    assert not any(secret in everything for secret in (TOKEN, PASSWORD, cookie))


@settings(max_examples=100)
@given(st.text(st.characters(codec="latin-1"), max_size=80))
def test_no_cookie_can_be_made_up(cookie: str) -> None:
    assert not Sessions("a secret of the sessions").valid(cookie)


@settings(max_examples=50)
@given(st.integers(0, 200), st.sampled_from("0123456789abcdef.-_"))
def test_no_cookie_can_be_altered(at: int, character: str) -> None:
    sessions = Sessions("a secret of the sessions")
    good = sessions.issue()
    at %= len(good)
    altered = good[:at] + character + good[at + 1 :]
    assert sessions.valid(altered) is (altered == good)


def test_a_wait_is_bounded_and_so_is_the_memory() -> None:
    clock = Clock()
    throttle = SignInThrottle(clock)
    for _ in range(40):
        wait = throttle.failed("192.0.2.1")
        clock.now += wait
    assert wait == LONGEST_WAIT_S
    for number in range(10_050):
        throttle.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(throttle._records) == 10_000


def test_neighbours_in_ipv6_are_one_address() -> None:
    throttle = SignInThrottle(Clock())
    throttle.failed("2001:db8::1")
    assert throttle.wait_s("2001:db8::2") > 0
    assert throttle.wait_s("2001:db8:0:1::2") == 0

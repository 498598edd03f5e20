"""The short way of a read and FastAPI's own understand every request alike."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from api_pool.answers import DoneAnswer, answer
from api_pool.context import ProcessContext
from api_pool.routes import reads
from api_pool.routes.ordinary import OrdinaryRead, OrdinaryRequests
from mt5kit.telemetry.errors_http import install_failure_handlers
from mt5kit.telemetry.http import ACCOUNT_KEY, USER_KEY

T = TypeVar("T")

USER = "5d6c2ad3-6a5b-4c05-90a5-111111111111"
DEFAULT_MS = 54_321

OTHER = "5d6c2ad3-6a5b-4c05-90a5-222222222222"
USERS = (
    *(USER, None, USER.upper(), USER.replace("-", ""), "{" + USER + "}", "nobody", ""),
    *(f" {USER}", f"urn:uuid:{USER}"),
)
ACCOUNTS = ("alpha", "a_B-9", "a" * 64, "a" * 65, "a b", "a.b", "é", "%", "a/b", "alpha%0A", "")
FORMS = ("account/{}/info", "account/{}/positions", "account/{}/orders", "account/{}/snapshot")
OTHER_FORMS = ("account", "positions", "orders", "snapshot", "account/{}/info/", "account/{}")
PATHS = (*FORMS, *OTHER_FORMS)
PARAMETERS = (
    *("max_age_ms=0", "max_age_ms=5000", "max_age_ms=86400000", "max_age_ms=86400001"),
    *("max_age_ms=007", "max_age_ms=9999999", "max_age_ms=-1", "max_age_ms=%2B5", "max_age_ms="),
    *("max_age_ms=1_0", "max_age_ms=5.0", "max_age_ms=5%0A", "fresh", "fresh=1", "fresh=0"),
    *("fresh=true", "fresh=false", "fresh=yes", "fresh=2", "fresh=", "symbol=EURUSD"),
    *("symbol=XAU.x", "symbol=US30-c", "symbol=", "symbol=%00", "symbol=a+b", "symbol=a%20b"),
    *("symbol=" + "s" * 65, "other=1", "", "max_age_ms=5000;fresh=1"),
)
HEADERS = (("X-Account-ID", "alpha"), ("X-Account-ID", "beta"), ("X-Account-ID", "a b"))
USER_HEADERS = (("X-User-ID", USER), ("X-User-ID", OTHER))


@dataclass(frozen=True)
class Sent:
    """A request; unless told otherwise an ordinary one."""

    method: str = "GET"
    path: str = FORMS[0]
    account: str = "alpha"
    user: str | None = USER
    extra: tuple[tuple[str, str], ...] = ()
    parameters: tuple[str, ...] = ()


def odd_in_one_way() -> Iterator[Sent]:
    """Every path with every one thing that may be odd about a request for it."""
    for path in PATHS:
        extra = () if "{}" in path else (HEADERS[0],)
        plain = Sent(path=path, extra=extra)
        yield plain
        yield from (replace(plain, method=method) for method in ("POST", "HEAD"))
        if "{}" in path:
            yield from (replace(plain, account=account) for account in ACCOUNTS)
        yield from (replace(plain, extra=(*extra, one)) for one in (*HEADERS, *USER_HEADERS))
        yield from (replace(plain, extra=(one,)) for one in HEADERS)
    for path in (FORMS[0], FORMS[1]):
        plain = Sent(path=path)
        yield from (replace(plain, user=user) for user in USERS)
        yield from (replace(plain, parameters=(one,)) for one in PARAMETERS)


def mostly(usual: T, others: Sequence[T]) -> st.SearchStrategy[T]:
    return st.one_of(st.just(usual), st.sampled_from(others))


SENT = st.builds(
    Sent,
    st.just("GET"),
    st.sampled_from(PATHS),
    mostly("alpha", ACCOUNTS),
    mostly(USER, USERS),
    st.lists(st.sampled_from(HEADERS), max_size=1).map(tuple),
    st.lists(st.sampled_from(PARAMETERS), max_size=3).map(tuple),
)


class Asked:
    """Stands for what answers: notes what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.scopes: list[Scope] = []


def context_of(asked: Asked) -> ProcessContext:
    class Account:
        def __init__(self, user: object, account_id: str) -> None:
            self.named = user, account_id

    class Directory:
        def kept(self, user: object, account_id: str) -> Account:
            return Account(user, account_id)

    class Limiter:
        def admit(self, caller: str) -> None:
            pass

    class Seen:
        def __init__(self, *what: object) -> None:
            self.what = what

    class Reader:
        async def look(self, account: Account, age_ms: int, _on_wait: object) -> Any:
            asked.asked.append((*account.named, age_ms))
            return type("Read", (), {"seen": Seen(), "meta": None})()

    class Context(ProcessContext):
        account_limiter: Any = Limiter()
        directory: Any = Directory()
        reader: Any = Reader()
        default_max_age_ms: Any = DEFAULT_MS

    return object.__new__(Context)


class Client:
    """Asks an app that runs in this process."""

    def __init__(self, app: ASGIApp) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        transport = httpx.ASGITransport(app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://test")

    def request(self, method: str, url: str, **said: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, url, **said))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


def app_of(asked: Asked, *, short: bool) -> Client:
    app = FastAPI(redirect_slashes=False)
    if short:
        reads.install_reads(app)
    else:
        app.include_router(reads.router)
        app.include_router(reads.by_header)
    install_failure_handlers(app)
    app.state.context = context_of(asked)

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["mt5.request_id"] = "r"
        asked.scopes.append(scope)
        await app(scope, receive, send)

    return Client(outer)


@pytest.fixture(scope="module")
def both() -> Iterator[list[tuple[Asked, Client]]]:
    patch = pytest.MonkeyPatch()
    for name in ("info", "orders", "positions", "snapshot"):

        def answered(_seen: object, *rest: object, name: str = name) -> Any:
            response = answer(DoneAnswer())
            response.raw_headers.append((b"x-what", f"{name} {rest[:-1]}".encode()))
            return response

        patch.setattr(reads, f"{name}_answer", answered)
    made = []
    for short in (True, False):
        asked = Asked()
        made.append((asked, app_of(asked, short=short)))
    yield made
    for _, client in made:
        client.close()
    patch.undo()


def check(both: list[tuple[Asked, Client]], sent: Sent) -> None:
    url = "/api/mt5/" + sent.path.format(quote(sent.account, safe="%/"))
    url += "?" + "&".join(sent.parameters) if sent.parameters else ""
    headers = [*sent.extra] if sent.user is None else [("X-User-ID", sent.user), *sent.extra]
    told = []
    for asked, client in both:
        asked.asked.clear()
        response = client.request(sent.method, url, headers=headers)
        scope = asked.scopes.pop()
        template = getattr(scope.get("route"), "path", None)
        # Of a refused request only FastAPI knows a part of what it names.
        good = response.status_code == 200
        named = (scope.get(ACCOUNT_KEY), scope.get(USER_KEY)) if good else None
        what = response.headers.get("x-what")
        told.append((response.status_code, response.text, what, template, named, [*asked.asked]))
    assert told[0] == told[1], sent


def test_whatever_one_thing_is_odd_both_ways_answer_alike(
    both: list[tuple[Asked, Client]],
) -> None:
    for sent in odd_in_one_way():
        check(both, sent)


@settings(max_examples=100)
@given(SENT)
def test_both_ways_answer_alike(both: list[tuple[Asked, Client]], sent: Sent) -> None:
    check(both, sent)


def scope_of(path: str, query: str = "", **headers: str) -> Scope:
    names = {"x_user_id": USER} | headers
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [
            (name.replace("_", "-").encode(), text.encode()) for name, text in names.items()
        ],
    }


@pytest.mark.parametrize(
    ("scope", "read"),
    [
        (scope_of("/api/mt5/account/alpha/info"), ("info", "alpha", None, None)),
        (scope_of("/api/mt5/account/alpha/snapshot", "fresh=1"), ("snapshot", "alpha", 0, None)),
        (
            scope_of("/api/mt5/account/a/positions", "symbol=EURUSD&max_age_ms=5000"),
            ("positions", "a", 5000, "EURUSD"),
        ),
        (scope_of("/api/mt5/orders", x_account_id="b"), ("orders", "b", None, None)),
    ],
)
def test_what_most_requests_look_like_goes_the_short_way(
    scope: Scope, read: tuple[object, ...]
) -> None:
    found = OrdinaryRequests().read_in(scope)
    assert isinstance(found, OrdinaryRead)
    assert (found.part, found.account_id, found.max_age_ms, found.symbol) == read
    assert str(found.user) == USER


def test_every_read_stays_documented(both: list[tuple[Asked, Client]]) -> None:
    short, long = (client.request("GET", "/openapi.json").json() for _, client in both)
    assert short == long
    named = {one["name"] for one in short["paths"]["/api/mt5/positions"]["get"]["parameters"]}
    assert named == {"x-user-id", "x-account-id", "max_age_ms", "fresh", "symbol"}


def test_the_default_age_is_that_of_the_last_second() -> None:
    now = 100.0
    route = reads.OrdinaryReads(lambda: now)
    context: Any = context_of(Asked())
    assert route._default_age(context) == DEFAULT_MS
    type(context).default_max_age_ms = 7000
    now += reads.DEFAULT_AGE_S / 2
    assert route._default_age(context) == DEFAULT_MS
    now += reads.DEFAULT_AGE_S
    assert route._default_age(context) == 7000

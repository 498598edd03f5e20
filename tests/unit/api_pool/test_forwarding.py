"""Turns and errors cross the wire between replicas and are the same on the other side."""

from collections.abc import Callable
from uuid import uuid4

import httpx
import msgspec
import pytest
import structlog

from api_pool.forwarding import (
    ANSWER_MARGIN_S,
    KEY_HEADER,
    PATH,
    POOL_TIMEOUT_S,
    ForwardedAnswer,
    ForwardedError,
    ForwardedTurn,
    Forwarder,
)
from api_pool.turns import HistoryTurn, LookTurn, ProofTurn, Taken, TurnRequest
from mt5kit import errors
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.history import HistoryQuery
from mt5kit.errors import (
    BrokerTimeout,
    CallerError,
    InternalFault,
    InvalidParameters,
    Mt5SwarmError,
    ServiceOverloaded,
    TerminalHandedOver,
    TerminalMoved,
    TerminalTimeout,
    TerminalUnavailable,
    Unavailable,
)
from mt5kit.networks import Networks
from mt5kit.secret import Secret
from mt5kit.state.postgres import DatabaseUnavailable
from mt5kit.state.redis import StateUnavailable
from mt5kit.vault import AccountBinding, KeyMissing, KeyRing, Vault

URL = "http://api-2:8000"
IDENTITY = AccountIdentity(7, "S")
LOOK = LookTurn("alpha", IDENTITY, 5)
QUERY = HistoryQuery(1, 2, "EURUSD", (3, 4), 100)
BINDING = AccountBinding(uuid4(), 7, "S")
PASSWORD = "a-password-of-somebody"
PROOF = ProofTurn(BINDING, Vault(KeyRing.generate()).seal(Secret(PASSWORD), BINDING))
TAKEN = Taken("t-1", "api-2", 11, 12, 1.5, 2.5, msgspec.Raw(b'{"a":1}'))
TOLD = tuple(
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, (CallerError, Unavailable))
)

Answer = Callable[[httpx.Request], httpx.Response]


def answered(told: ForwardedAnswer) -> httpx.Response:
    return httpx.Response(200, content=msgspec.json.encode(told))


async def forwarded(answer: Answer, turn: TurnRequest = LOOK, deadline_s: float = 3) -> Taken:
    forwarder = Forwarder(Secret("the-internal-key"), 10.0, httpx.MockTransport(answer))
    try:
        return await forwarder.take(URL, "t-1", turn, deadline_s)
    finally:
        await forwarder.aclose()


async def over_the_wire(error: Mt5SwarmError) -> Mt5SwarmError:
    told = ForwardedAnswer(error=ForwardedError.of(error))
    with pytest.raises(Mt5SwarmError) as caught:
        await forwarded(lambda _: answered(told))
    return caught.value


@pytest.mark.parametrize("turn", [LOOK, HistoryTurn("alpha", IDENTITY, "deals", QUERY), PROOF])
async def test_a_turn_arrives_as_it_was_asked(turn: TurnRequest) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answered(ForwardedAnswer(taken=TAKEN))

    with structlog.contextvars.bound_contextvars(request_id="of-the-caller"):
        assert await forwarded(answer, turn) == TAKEN
    (request,) = asked
    assert str(request.url) == URL + PATH
    assert request.headers[KEY_HEADER] == "the-internal-key"
    assert request.headers["X-Request-ID"] == "of-the-caller"
    arrived = msgspec.json.decode(request.content, type=ForwardedTurn)
    assert arrived == ForwardedTurn("t-1", 3, turn)
    assert PASSWORD.encode() not in request.content
    timeout = request.extensions["timeout"]
    assert timeout["read"] == 3 + ANSWER_MARGIN_S
    assert timeout["pool"] == POOL_TIMEOUT_S


@pytest.mark.parametrize("kind", TOLD)
async def test_every_error_is_itself_on_the_other_side(kind: type[Mt5SwarmError]) -> None:
    details = {"mt5_code": -6, "state": AccountState.LOGIN_FAILED, "servers": ["a"]}
    back = await over_the_wire(kind("why", details=details, retry_after_s=2.5))
    assert type(back) is kind
    assert (back.message, back.details, back.retry_after_s) == ("why", details, 2.5)
    assert (await over_the_wire(kind("why"))).retry_after_s == kind.default_retry_after_s


@pytest.mark.parametrize("kind", [DatabaseUnavailable, StateUnavailable])
async def test_a_store_that_is_away_there_is_not_now_here(kind: type[Unavailable]) -> None:
    back = await over_the_wire(kind("why", retry_after_s=2.5))
    assert isinstance(back, Unavailable)
    assert (back.code, back.status, back.retry_after_s) == (kind.code, kind.status, 2.5)


@pytest.mark.parametrize("kind", [InternalFault, KeyMissing])
async def test_of_faults_nothing_is_told_but_that_they_are(kind: type[Mt5SwarmError]) -> None:
    back = await over_the_wire(kind("key 17 is missing", details={"key": 17}))
    assert type(back) is InternalFault
    assert (back.message, back.details) == ("the owner of the terminal failed", {})


async def test_an_error_of_a_newer_replica_is_a_fault() -> None:
    told = ForwardedAnswer(error=ForwardedError("FutureError", "why", {}, None))
    with pytest.raises(InternalFault):
        await forwarded(lambda _: answered(told))


@pytest.mark.parametrize(
    ("failure", "of_a_look", "of_a_proof"),
    [
        (httpx.ConnectError, TerminalMoved, TerminalMoved),
        (httpx.ConnectTimeout, TerminalMoved, TerminalMoved),
        (httpx.PoolTimeout, ServiceOverloaded, ServiceOverloaded),
        (httpx.ReadTimeout, TerminalTimeout, TerminalTimeout),
        (httpx.WriteTimeout, TerminalTimeout, TerminalTimeout),
        (httpx.ReadError, TerminalMoved, TerminalTimeout),
        (httpx.WriteError, TerminalMoved, TerminalTimeout),
        (httpx.RemoteProtocolError, TerminalMoved, TerminalTimeout),
    ],
)
async def test_a_proof_that_may_have_begun_is_never_moved(
    failure: type[httpx.HTTPError],
    of_a_look: type[Mt5SwarmError],
    of_a_proof: type[Mt5SwarmError],
) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        raise failure("lost")

    for turn, expected in ((LOOK, of_a_look), (PROOF, of_a_proof)):
        with pytest.raises(Mt5SwarmError) as caught:
            await forwarded(answer, turn)
        assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (503, TerminalMoved),
        (429, TerminalUnavailable),
        (401, TerminalUnavailable),
        (307, TerminalUnavailable),
        (500, TerminalUnavailable),
    ],
)
async def test_an_owner_that_refuses_us_has_begun_nothing(
    status: int, expected: type[Mt5SwarmError]
) -> None:
    with pytest.raises(Mt5SwarmError) as caught:
        await forwarded(lambda _: httpx.Response(status, headers={"Location": "/elsewhere"}))
    assert type(caught.value) is expected


async def test_an_answer_that_says_nothing_is_no_answer() -> None:
    with pytest.raises(TerminalUnavailable):
        await forwarded(lambda _: answered(ForwardedAnswer()))


async def test_an_error_keeps_its_wait_for_the_broker() -> None:
    assert (await over_the_wire(BrokerTimeout("slow", retry_after_s=17))).retry_after_s == 17


@pytest.mark.parametrize("host", ["api-2", "10.77.3.1", "[fd00::1]", "10.77.2.4.wild.example"])
async def test_nobody_outside_the_networks_is_told_the_key(host: str) -> None:
    asked: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return answered(ForwardedAnswer(taken=TAKEN))

    forwarder = Forwarder(
        Secret("the-internal-key"),
        10.0,
        httpx.MockTransport(answer),
        Networks(["10.77.2.0/24", "fd00:77::/64"]),
    )
    with pytest.raises(TerminalUnavailable, match="outside"):
        await forwarder.take(f"http://{host}:8000", "t-1", LOOK, 3)
    assert not asked
    for inside in ("10.77.2.4", "[fd00:77::1]"):
        assert await forwarder.take(f"http://{inside}:8000", "t-1", LOOK, 3) == TAKEN
    assert len(asked) == 2
    await forwarder.aclose()


def with_news(encoded: bytes) -> bytes:
    """The same as another version may write it: every object has a field that we do not know."""

    def more(value: object) -> object:
        if isinstance(value, dict):
            return {name: more(part) for name, part in value.items()} | {"news": [1, {"of": 2}]}
        return [more(part) for part in value] if isinstance(value, list) else value

    return msgspec.json.encode(more(msgspec.json.decode(encoded)))


@pytest.mark.parametrize("turn", [LOOK, HistoryTurn("alpha", IDENTITY, "deals", QUERY), PROOF])
def test_a_turn_of_a_newer_version_is_understood(turn: TurnRequest) -> None:
    asked = ForwardedTurn("t-1", 3, turn)
    encoded = with_news(msgspec.json.encode(asked))
    assert msgspec.json.decode(encoded, type=ForwardedTurn) == asked


async def test_an_answer_of_a_newer_version_is_understood() -> None:
    told = with_news(msgspec.json.encode(ForwardedAnswer(taken=TAKEN)))
    taken = await forwarded(lambda _: httpx.Response(200, content=told))
    assert (taken.terminal_id, taken.token, taken.as_of_ms) == ("t-1", 11, 12)
    told = with_news(
        msgspec.json.encode(ForwardedAnswer(error=ForwardedError.of(BrokerTimeout("x"))))
    )
    with pytest.raises(BrokerTimeout):
        await forwarded(lambda _: httpx.Response(200, content=told))


async def test_an_error_that_only_a_newer_version_knows_is_what_it_is_a_kind_of() -> None:
    told = ForwardedError.of(TerminalHandedOver("why", retry_after_s=2))
    assert (told.kind, told.bases[:2]) == (
        "TerminalHandedOver",
        ("TerminalMoved", "TerminalUnavailable"),
    )
    newer = msgspec.structs.replace(told, kind="Later", bases=("Latest", *told.bases))
    with pytest.raises(TerminalMoved) as caught:
        await forwarded(lambda _: answered(ForwardedAnswer(error=newer)))
    assert (type(caught.value), caught.value.retry_after_s) == (TerminalMoved, 2)
    # And an older one tells of no bases.
    older = msgspec.structs.replace(told, kind="TerminalMoved", bases=())
    with pytest.raises(TerminalMoved):
        await forwarded(lambda _: answered(ForwardedAnswer(error=older)))


async def test_a_turn_that_only_a_newer_version_knows_fails_for_now() -> None:
    told = InvalidParameters("this is no forwarded turn")

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(told.status, json={"success": False})

    with pytest.raises(TerminalUnavailable) as caught:
        await forwarded(answer)
    assert caught.value.retry_after_s

"""Published keys: rotation, floods, an issuer that is away, and what is no key."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from tests.unit.websocket_pool.issuer import (
    NOW,
    URL,
    Chunks,
    Published,
    World,
    claims,
    ec_key,
    es,
    hs,
    jwk,
    rs,
    rsa_key,
    sign,
)

from mt5kit.errors import Unauthenticated, Unavailable
from websocket_pool import jwks
from websocket_pool.jwks import EMPTY_PAUSE_S, FRESH_S, LARGEST_ANSWER, PAUSE_S, STALE_S

OLD, NEW = ec_key(), ec_key()


def token(key: ec.EllipticCurvePrivateKey, kid: str) -> str:
    return sign(es(key), {"alg": "ES256", "kid": kid}, claims(exp=NOW + 86_400))


OLD_TOKEN, NEW_TOKEN = token(OLD, "old"), token(NEW, "new")


@pytest.fixture
async def published() -> AsyncIterator[Published]:
    published = Published(jwk(OLD, "old"))
    yield published
    await published.client.aclose()


@pytest.fixture
def world(published: Published) -> World:
    return World(published)


def away(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("away")


async def refused(world: World, what: str) -> None:
    with pytest.raises(Unauthenticated):
        await world.verify(what)


async def unavailable(world: World, what: str) -> None:
    with pytest.raises(Unavailable) as later:
        await world.verify(what)
    assert later.value.retry_after_s


async def test_keys_are_read_once_in_ten_minutes(world: World, published: Published) -> None:
    for _ in range(5):
        await world.verify(OLD_TOKEN)
    world.now += FRESH_S
    await world.verify(OLD_TOKEN)
    assert len(published.requests) == 1
    world.now += 1
    await world.verify(OLD_TOKEN)
    assert len(published.requests) == 2
    assert {str(request.url) for request in published.requests} == {URL}


async def test_a_flood_of_unknown_keys_asks_once_in_thirty_seconds(
    world: World, published: Published
) -> None:
    await world.verify(OLD_TOKEN)
    for flood in range(1, 4):
        world.now += PAUSE_S
        unknown = [token(NEW, f"kid-{flood}-{number}") for number in range(50)]
        await asyncio.gather(*(refused(world, one) for one in unknown))
        await refused(world, token(NEW, "and-one-more"))
        assert len(published.requests) == 1 + flood


async def test_a_rotated_key_is_taken_and_a_withdrawn_one_refused(
    world: World, published: Published
) -> None:
    await world.verify(OLD_TOKEN)
    published.keys = [jwk(NEW, "new"), jwk(OLD, "old")]
    world.now += PAUSE_S
    await world.verify(NEW_TOKEN)
    await world.verify(OLD_TOKEN)
    assert len(published.requests) == 2
    published.keys = [jwk(NEW, "new")]
    world.now += FRESH_S + 1
    await refused(world, OLD_TOKEN)
    await world.verify(NEW_TOKEN)
    assert len(published.requests) == 3


async def test_all_who_wait_share_one_request_and_none_can_end_it(
    world: World, published: Published
) -> None:
    published.gate.clear()
    waiting = [asyncio.create_task(world.verify(OLD_TOKEN)) for _ in range(20)]
    await until(lambda: bool(published.requests))
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    published.gate.set()
    assert len(await asyncio.gather(*waiting[1:])) == 19
    assert len(published.requests) == 1


async def test_keys_serve_on_for_an_hour_while_the_issuer_is_away(
    world: World, published: Published
) -> None:
    await world.verify(OLD_TOKEN)
    published.answer = away
    world.now += FRESH_S + 1
    await world.verify(OLD_TOKEN)
    await world.verify(OLD_TOKEN)
    assert len(published.requests) == 2
    # Whether this key is new or made up cannot be known.
    await unavailable(world, NEW_TOKEN)
    assert len(published.requests) == 2
    world.now += STALE_S - FRESH_S - 1
    await world.verify(OLD_TOKEN)
    world.now += 1
    await unavailable(world, OLD_TOKEN)
    published.answer = None
    world.now += EMPTY_PAUSE_S
    await world.verify(OLD_TOKEN)


async def test_while_nothing_is_known_the_issuer_is_asked_every_few_seconds(
    world: World, published: Published
) -> None:
    published.answer = away
    await asyncio.gather(*(unavailable(world, OLD_TOKEN) for _ in range(20)))
    await unavailable(world, NEW_TOKEN)
    assert len(published.requests) == 1
    world.now += EMPTY_PAUSE_S
    published.answer = None
    await world.verify(OLD_TOKEN)
    assert len(published.requests) == 2


BODY = json.dumps({"keys": [jwk(OLD, "old")]}).encode()
ANSWERS: dict[str, Callable[[], httpx.Response]] = {
    "a redirect": lambda: httpx.Response(302, headers={"location": "https://evil.example/"}),
    "an error with keys": lambda: httpx.Response(500, stream=Chunks(BODY)),
    "another status with keys": lambda: httpx.Response(203, stream=Chunks(BODY)),
    "no JSON": lambda: httpx.Response(200, stream=Chunks(b"<html>")),
    "very deep JSON": lambda: httpx.Response(200, stream=Chunks(b"[" * 50_000)),
    "a list": lambda: httpx.Response(200, stream=Chunks(b"[]")),
    "no keys": lambda: httpx.Response(200, stream=Chunks(b'{"keys":[]}')),
    "keys no list": lambda: httpx.Response(200, stream=Chunks(b'{"keys":{"old":1}}')),
    "keys twice": lambda: httpx.Response(
        200, stream=Chunks(b'{"keys":[],' + BODY.removeprefix(b"{"))
    ),
    "compressed": lambda: httpx.Response(
        200, headers={"content-encoding": "gzip"}, stream=Chunks(gzip.compress(BODY))
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_without_keys_is_as_none(
    world: World, published: Published, name: str
) -> None:
    published.answer = lambda _request: ANSWERS[name]()
    await unavailable(world, OLD_TOKEN)
    assert len(published.requests) == 1


async def test_an_endless_answer_is_not_read_to_its_end(world: World, published: Published) -> None:
    endless = Chunks(b" " * 1024, 1_000_000)
    published.answer = lambda _request: httpx.Response(200, stream=endless)
    await unavailable(world, OLD_TOKEN)
    assert endless.taken <= LARGEST_ANSWER // 1024 + 1


async def test_a_slow_answer_is_not_waited_for(
    world: World, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_LIMIT_S", 0.01)
    published.gate.clear()
    async with asyncio.timeout(10):
        await unavailable(world, OLD_TOKEN)


WEAK, WIDE, ENCRYPTING = rsa_key(1024), ec.generate_private_key(ec.SECP384R1()), rsa_key()
SIGNERS = (
    ("ES256", es(NEW)),
    ("ES256", es(WIDE)),
    ("RS256", rs(WEAK)),
    ("RS256", rs(ENCRYPTING)),
    ("HS256", hs(bytes(3))),
)
USELESS: dict[str, Any] = {
    "an unknown type": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "x"},
    "a secret": {"kty": "oct", "k": "AAAA", "kid": "x", "alg": "HS256"},
    "a secret for RS256": {"kty": "oct", "k": "AAAA", "kid": "x", "alg": "RS256"},
    "a key to encrypt with": jwk(ENCRYPTING, "x", use="enc"),
    "a key that is not for verifying": jwk(NEW, "x", key_ops=["encrypt"]),
    "operations no list": jwk(NEW, "x", key_ops="verify"),
    "another algorithm": jwk(NEW, "x", alg="ES384"),
    "an algorithm of another type": jwk(NEW, "x", alg="HS256"),
    "another curve": jwk(WIDE, "x"),
    "a weak key": jwk(WEAK, "x"),
    "a private key": jwk(NEW, "x", **json.loads(ECAlgorithm.to_jwk(NEW))),
    "a private RSA key": jwk(ENCRYPTING, "x", **json.loads(RSAAlgorithm.to_jwk(ENCRYPTING))),
    "half a private key": jwk(NEW, "x", d="AAAA"),
    "no name": {name: value for name, value in jwk(NEW, "x").items() if name != "kid"},
    "a name that is a number": jwk(NEW, "x") | {"kid": 1},
    "a name that is a list": jwk(NEW, "x") | {"kid": ["x"]},
    "a type that is a list": jwk(NEW, "x", kty=["EC"]),
    "a point off the curve": jwk(NEW, "x", y=jwk(OLD, "old")["y"]),
    "no point": {"kty": "EC", "crv": "P-256", "kid": "x"},
    "a point that is a number": jwk(NEW, "x", x=5),
    "no object": "key",
    "null": None,
}


@pytest.mark.parametrize("name", USELESS)
async def test_what_is_no_public_key_for_signatures_is_passed_over(
    world: World, published: Published, name: str
) -> None:
    published.keys.insert(0, USELESS[name])
    await world.verify(OLD_TOKEN)
    for algorithm, signer in SIGNERS:
        await refused(world, sign(signer, {"alg": algorithm, "kid": "x"}, claims()))


async def test_of_two_keys_with_one_name_the_first_counts(
    world: World, published: Published
) -> None:
    published.keys.append(jwk(NEW, "old"))
    await world.verify(OLD_TOKEN)
    await refused(world, token(NEW, "old"))


async def test_a_fault_of_ours_is_not_taken_for_an_issuer_that_is_away(
    world: World, published: Published
) -> None:
    await published.client.aclose()
    with pytest.raises(RuntimeError):
        await world.verify(OLD_TOKEN)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)

"""Tokens that are good, and every way of forging one that we know."""

import base64
import hmac
import json
import string
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.unit.websocket_pool.issuer import (
    AUDIENCE,
    ISSUER,
    NOW,
    SECRET,
    URL,
    USER,
    Published,
    Signer,
    World,
    claims,
    ec_key,
    es,
    hs,
    jwk,
    part,
    rs,
    rsa_key,
    sign,
)

from mt5kit.errors import Unauthenticated
from websocket_pool.tokens import Bearer, TokenVerifier

EC, OTHER, MINE, RSA = ec_key(), ec_key(), ec_key(), rsa_key()
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
HS_HEADER = {"alg": "HS256", "typ": "JWT"}
ES_HEADER = {"alg": "ES256", "typ": "JWT", "kid": "ec"}
RS_HEADER = {"alg": "RS256", "typ": "JWT", "kid": "rsa"}
GOOD = (
    (HS_HEADER, hs()),
    (HS_HEADER | {"kid": "of-an-old-project"}, hs()),
    (ES_HEADER, es(EC)),
    (RS_HEADER, rs(RSA)),
)


def published() -> Published:
    return Published(jwk(EC, "ec"), jwk(OTHER, "other"), jwk(RSA, "rsa"))


@pytest.fixture
def world() -> World:
    return World(published())


def wide(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(("header", "signer"), GOOD)
async def test_a_good_token_tells_the_user_and_its_end(
    world: World, header: dict[str, str], signer: Signer
) -> None:
    token = sign(signer, header, claims())
    assert await world.verify(token) == Bearer(UUID(USER), NOW + 3600)


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": None},
        {"is_anonymous": None},
        {"nbf": NOW + 29, "iat": NOW + 29},
        {"aud": ["other", AUDIENCE]},
        {"exp": NOW + 0.5},
        {"exp": int(NOW) + 7 * 24 * 3600},
        {"sub": USER.upper()},
    ],
    ids=str,
)
async def test_what_is_unusual_in_a_good_token_is_taken(
    world: World, changes: dict[str, object]
) -> None:
    bearer = await world.verify(sign(hs(), HS_HEADER, claims(**changes)))
    assert bearer.user_id == UUID(USER)


class Claim(NamedTuple):
    changes: dict[str, object]
    says: str


@pytest.mark.parametrize(
    "claim",
    [
        Claim({"iss": "https://evil.example/auth/v1"}, "issuer"),
        Claim({"iss": ISSUER + "/"}, "issuer"),
        Claim({"iss": [ISSUER]}, "issuer"),
        Claim({"iss": None}, "issuer"),
        Claim({"aud": "other"}, "audience"),
        Claim({"aud": None}, "audience"),
        Claim({"aud": []}, "audience"),
        Claim({"aud": ["other", "authenticate"]}, "audience"),
        Claim({"aud": [[AUDIENCE]]}, "audience"),
        Claim({"aud": {AUDIENCE: 1}}, "audience"),
        Claim({"exp": None}, "exp"),
        Claim({"exp": str(NOW + 60)}, "exp"),
        Claim({"exp": True}, "exp"),
        Claim({"exp": NOW}, "expired"),
        Claim({"exp": NOW - 1}, "expired"),
        Claim({"exp": -1e308}, "expired"),
        Claim({"exp": NOW + 7 * 24 * 3600 + 1}, "week"),
        Claim({"exp": 10**400}, "week"),
        Claim({"nbf": NOW + 31}, "nbf"),
        Claim({"nbf": "0"}, "nbf"),
        Claim({"iat": NOW + 31}, "iat"),
        Claim({"iat": False}, "iat"),
        Claim({"role": "service_role"}, "signed in"),
        Claim({"role": "anon"}, "signed in"),
        Claim({"role": None}, "signed in"),
        Claim({"role": ["authenticated"]}, "signed in"),
        Claim({"is_anonymous": True}, "anonymous"),
        Claim({"is_anonymous": "false"}, "anonymous"),
        Claim({"sub": None}, "sub"),
        Claim({"sub": "1 OR 1=1"}, "sub"),
        Claim({"sub": USER.replace("-", "")}, "sub"),
        Claim({"sub": "{" + USER + "}"}, "sub"),
        Claim({"sub": "urn:uuid:" + USER}, "sub"),
        Claim({"sub": 7}, "sub"),
    ],
    ids=lambda claim: str(claim.changes),
)
async def test_a_signed_claim_that_does_not_do_is_refused(world: World, claim: Claim) -> None:
    for header, signer in GOOD[1:3]:
        with pytest.raises(Unauthenticated) as refused:
            await world.verify(sign(signer, header, claims(**claim.changes)))
        assert claim.says in refused.value.message


def twice(name: str, first: object, second: object) -> bytes:
    """JSON in which a name stands twice."""
    rest = json.dumps(claims(**{name: None}))[1:]
    return f'{{"{name}":{json.dumps(first)},"{name}":{json.dumps(second)},{rest}'.encode()


def header(**changes: object) -> dict[str, object]:
    return {**ES_HEADER, **changes}


def raw(key: bytes) -> Signer:
    """HS256 with whatever bytes; the library itself refuses some."""
    return lambda message: hmac.digest(key, message, "sha256")


def der(key: ec.EllipticCurvePrivateKey) -> Signer:
    return lambda message: key.sign(message, ec.ECDSA(SHA256()))


def other_claims() -> str:
    ours = sign(es(EC), ES_HEADER, claims())
    theirs = sign(es(EC), ES_HEADER, claims(sub=USER.replace("1", "9")))
    return ".".join([*theirs.split(".")[:2], ours.split(".")[2]])


FORGED: dict[str, Callable[[], str]] = {
    "alg none": lambda: f"{part({'alg': 'none'})}.{part(claims())}.",
    "alg none, signed": lambda: sign(es(EC), header(alg="none"), claims()),
    "alg None": lambda: sign(lambda _: b"x", header(alg="None"), claims()),
    "alg null": lambda: sign(es(EC), header(alg=None), claims()),
    "no alg": lambda: sign(es(EC), {"kid": "ec"}, claims()),
    "alg a list": lambda: sign(es(EC), header(alg=["ES256"]), claims()),
    "alg in small letters": lambda: sign(es(EC), header(alg="es256"), claims()),
    "alg of another size": lambda: sign(es(EC), header(alg="ES384"), claims()),
    "PS256 with the RSA key": lambda: sign(rs(RSA), RS_HEADER | {"alg": "PS256"}, claims()),
    "HS512 with the secret": lambda: sign(hs(), header(alg="HS512"), claims()),
    "HS256 with the RSA key's PEM": lambda: sign(raw(PEM), RS_HEADER | {"alg": "HS256"}, claims()),
    "HS256 with the RSA key's DER": lambda: sign(
        raw(wide(RSA.public_key())), RS_HEADER | {"alg": "HS256"}, claims()
    ),
    "HS256 with the EC key's DER": lambda: sign(
        raw(wide(EC.public_key())), header(alg="HS256"), claims()
    ),
    "HS256 with the published JSON": lambda: sign(
        raw(json.dumps(jwk(EC, "ec")).encode()), header(alg="HS256"), claims()
    ),
    "HS256 with an empty secret": lambda: sign(raw(b""), HS_HEADER, claims()),
    "HS256 with another secret": lambda: sign(hs(SECRET + "x"), HS_HEADER, claims()),
    "RS256 named with the EC key": lambda: sign(rs(RSA), RS_HEADER | {"kid": "ec"}, claims()),
    "ES256 named with the RSA key": lambda: sign(es(EC), header(kid="rsa"), claims()),
    "kid of another key": lambda: sign(es(EC), header(kid="other"), claims()),
    "no kid": lambda: sign(es(EC), {"alg": "ES256"}, claims()),
    "kid a number": lambda: sign(es(EC), header(kid=1), claims()),
    "kid a list": lambda: sign(es(EC), header(kid=["ec"]), claims()),
    "kid a path": lambda: sign(es(EC), header(kid="../../../dev/null"), claims()),
    "kid a URL": lambda: sign(es(EC), header(kid="https://evil.example/jwks.json"), claims()),
    "kid with a query": lambda: sign(es(EC), header(kid="ec' OR '1'='1"), claims()),
    "kid with a NUL": lambda: sign(es(EC), header(kid="ec\0"), claims()),
    "a key in the header": lambda: sign(
        es(MINE), header(kid="mine", jwk=jwk(MINE, "mine")), claims()
    ),
    "an address of keys in the header": lambda: sign(
        es(MINE), header(kid="mine", jku="https://evil.example", x5u="https://e.example"), claims()
    ),
    "a key in the header under a known name": lambda: sign(
        es(MINE), header(jwk=jwk(MINE, "ec")), claims()
    ),
    "crit": lambda: sign(es(EC), header(crit=["exp"]), claims()),
    "crit b64": lambda: sign(es(EC), header(crit=["b64"], b64=False), claims()),
    "b64 false": lambda: sign(es(EC), header(b64=False), claims()),
    "no signature": lambda: sign(lambda _: b"", ES_HEADER, claims()),
    "a signature of zeros": lambda: sign(lambda _: bytes(64), ES_HEADER, claims()),
    "a signature in DER": lambda: sign(der(EC), ES_HEADER, claims()),
    "a signature of other claims": other_claims,
    "sub twice": lambda: sign(es(EC), ES_HEADER, twice("sub", USER, "0" * 32)),
    "role twice": lambda: sign(es(EC), ES_HEADER, twice("role", "anon", "authenticated")),
    "alg twice": lambda: sign(es(EC), b'{"alg":"none","alg":"ES256","kid":"ec"}', claims()),
    "NaN": lambda: sign(es(EC), ES_HEADER, json.dumps(claims(exp=float("nan"))).encode()),
    "infinity": lambda: sign(es(EC), ES_HEADER, json.dumps(claims(exp=float("inf"))).encode()),
    "1e999": lambda: sign(
        es(EC), ES_HEADER, json.dumps(claims(exp=7)).replace("7,", "1e999,", 1).encode()
    ),
    "claims a list": lambda: sign(es(EC), ES_HEADER, [claims()]),
    "claims no JSON": lambda: sign(es(EC), ES_HEADER, b"hello"),
    "claims no UTF-8": lambda: sign(es(EC), ES_HEADER, b'{"sub":"\xff"}'),
    "header a string": lambda: sign(es(EC), "ES256", claims()),
    "header no JSON": lambda: sign(es(EC), b"{", claims()),
    "header very deep": lambda: sign(es(EC), b"[" * 2000, claims()),
    "claims very deep": lambda: sign(es(EC), ES_HEADER, b'{"a":' * 400),
    "huge": lambda: sign(es(EC), ES_HEADER, claims(padding="x" * 4096)),
    "four parts": lambda: sign(es(EC), ES_HEADER, claims()) + ".e30",
    "two parts": lambda: sign(es(EC), ES_HEADER, claims()).rpartition(".")[0],
    "five parts, as if sealed": lambda: "e30.e30.e30.e30.e30",
    "empty": lambda: "",
    "dots": lambda: "..",
    "not ASCII": lambda: sign(es(EC), ES_HEADER, claims()) + "é",
    "half a surrogate pair": lambda: sign(es(EC), ES_HEADER, claims()) + "\ud800",
    "a line end": lambda: sign(es(EC), ES_HEADER, claims()) + "\n",
    "padding": lambda: sign(es(EC), ES_HEADER, claims()) + "==",
    "a space before": lambda: " " + sign(es(EC), ES_HEADER, claims()),
    "Bearer before": lambda: "Bearer " + sign(es(EC), ES_HEADER, claims()),
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("secret", [SECRET, None], ids=["both", "published only"])
async def test_a_forged_token_is_refused(name: str, secret: str | None) -> None:
    token = FORGED[name]()
    world = World(published(), secret)
    with pytest.raises(Unauthenticated) as refused:
        await world.verify(token)
    failure: BaseException | None = refused.value
    while failure is not None:
        assert not token or token not in repr(failure)
        failure = failure.__cause__ or failure.__context__


async def test_a_published_key_does_no_hs256_without_a_secret() -> None:
    world = World(published(), None)
    with pytest.raises(Unauthenticated, match="not accepted"):
        await world.verify(sign(hs(), HS_HEADER, claims()))


async def test_without_keys_only_the_secret_does() -> None:
    world = World()
    await world.verify(sign(hs(), HS_HEADER, claims()))
    with pytest.raises(Unauthenticated, match="not accepted"):
        await world.verify(sign(es(EC), ES_HEADER, claims()))


def verifier(**changes: Any) -> TokenVerifier:
    options: dict[str, Any] = {
        "secret": SecretStr(SECRET),
        "jwks_url": URL,
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "client": httpx.AsyncClient(),
    }
    return TokenVerifier.of(**(options | changes))


async def test_where_nothing_is_configured_tokens_are_not_accepted() -> None:
    nothing = verifier(secret=None, jwks_url=None, issuer=None)
    with pytest.raises(Unauthenticated, match="tokens are not accepted here"):
        await nothing.verify(sign(hs(), HS_HEADER, claims()))


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": SecretStr("x" * 31)},
        {"secret": SecretStr(PEM.decode())},
        {"issuer": None},
        {"issuer": ""},
        {"audience": ""},
        {"jwks_url": "http://project.example/jwks.json"},
        {"jwks_url": "http://127.0.0.1.evil.example/jwks.json"},
        {"jwks_url": "http://localhost@evil.example/jwks.json"},
        {"jwks_url": "https://user:pass@project.example/jwks.json"},
        {"jwks_url": "file:///etc/passwd"},
        {"jwks_url": "project.example/jwks.json"},
        {"jwks_url": "https://"},
        {"jwks_url": "https://project.example:port/jwks.json"},
    ],
    ids=str,
)
def test_settings_that_would_let_others_in_are_refused_at_start(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the settings differ, not the kind
        verifier(**changes)
    assert not isinstance(refused.value, UnicodeError)
    assert "x" * 31 not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:9"])
def test_keys_may_be_read_from_this_machine_without_tls(host: str) -> None:
    verifier(jwks_url=f"http://{host}/jwks.json")


def test_secrets_show_in_no_repr(world: World) -> None:
    assert SECRET not in repr(world.verifier._secret) + repr(world.verifier)


LETTERS = string.ascii_letters + string.digits + "-_=.+/ \n\0é"


@given(data=st.data())
async def test_any_change_to_a_good_token_makes_it_bad(data: st.DataObject) -> None:
    header, signer = data.draw(st.sampled_from(GOOD))
    good = sign(signer, header, claims())
    at = data.draw(st.integers(0, len(good)))
    put = data.draw(st.text(LETTERS, max_size=2))
    taken = data.draw(st.integers(0, 2))
    changed = good[:at] + put + good[at + taken :]
    world = World(published())
    if changed == good:
        await world.verify(changed)
    else:
        with pytest.raises(Unauthenticated):
            await world.verify(changed)


@given(last=st.sampled_from(string.ascii_letters + string.digits + "-_"))
async def test_a_signature_has_one_spelling(last: str) -> None:
    """The last letter of 32 or 64 bytes holds bits that decoders throw away."""
    for header, signer in GOOD:
        good = sign(signer, header, claims())
        changed = good[:-1] + last
        assert changed == good or base64.urlsafe_b64decode(changed.rpartition(".")[2] + "==")
        if changed != good:
            with pytest.raises(Unauthenticated):
                await World(published()).verify(changed)

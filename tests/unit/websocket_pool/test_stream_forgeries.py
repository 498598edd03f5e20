"""Every way of forging a token that we know."""

import hmac
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.unit.websocket_pool.issuer import (
    EC,
    ES_HEADER,
    HS_HEADER,
    MINE,
    PEM,
    RS_HEADER,
    RSA,
    SECRET,
    USER,
    Signer,
    World,
    claims,
    es,
    hs,
    jwk,
    part,
    published,
    rs,
    sign,
)

from mt5kit.errors import Unauthenticated


def wide(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


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

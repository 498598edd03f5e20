"""An issuer of tokens: keys, whatever it signs, and what it publishes."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, RSAAlgorithm

from websocket_pool.jwks import RemoteKeys
from websocket_pool.tokens import Bearer, Terms, TokenVerifier, _secret

NOW = 1_800_000_000.0
USER = "11111111-2222-3333-4444-555555555555"
ISSUER, AUDIENCE = "https://project.example/auth/v1", "authenticated"
URL = "https://project.example/auth/v1/.well-known/jwks.json"
SECRET = "a-secret-of-more-than-thirty-two-bytes"

Signer = Callable[[bytes], bytes]


def hs(secret: str | bytes = SECRET) -> Signer:
    key = secret.encode() if isinstance(secret, str) else secret
    algorithm = HMACAlgorithm(HMACAlgorithm.SHA256)
    return lambda message: algorithm.sign(message, key)


def es(key: ec.EllipticCurvePrivateKey) -> Signer:
    return lambda message: ECAlgorithm(ECAlgorithm.SHA256).sign(message, key)


def rs(key: rsa.RSAPrivateKey) -> Signer:
    return lambda message: RSAAlgorithm(RSAAlgorithm.SHA256).sign(message, key)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def jwk(key: Any, kid: str, **changes: object) -> dict[str, Any]:
    """What is published of a key."""
    algorithm = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
    public: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    return public | {"kid": kid, "use": "sig"} | changes


def part(content: object) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(signer: Signer, header: object, payload: object) -> str:
    """A token, however wrong its parts are."""
    message = f"{part(header)}.{part(payload)}"
    return f"{message}.{part(signer(message.encode()))}"


def claims(**changes: object) -> dict[str, object]:
    """Of a good token; a change to None leaves one out."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": USER,
        "exp": NOW + 3600,
        "iat": NOW,
        "role": "authenticated",
        "is_anonymous": False,
        "session_id": "e0a5c1de",
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


class Published:
    """The address of the keys: what it answers, and how often it was asked."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys: list[Any] = list(keys)
        self.answer: Callable[[httpx.Request], httpx.Response] | None = None
        self.requests: list[httpx.Request] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self._handle))

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        await self.gate.wait()
        if self.answer is not None:
            return self.answer(request)
        return httpx.Response(200, stream=Chunks(json.dumps({"keys": self.keys}).encode()))


class Chunks(httpx.AsyncByteStream):
    """A body, in chunks or never ending."""

    def __init__(self, chunk: bytes, times: int = 1) -> None:
        self.chunk = chunk
        self.times = times
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.times):
            self.taken += 1
            yield self.chunk


class World:
    """A verifier whose clocks stand until they are moved."""

    def __init__(self, published: Published | None = None, secret: str | None = SECRET) -> None:
        self.now = NOW
        self.verifier = TokenVerifier(
            _secret(secret) if secret else None,
            RemoteKeys(URL, published.client, lambda: self.now) if published else None,
            Terms(ISSUER, AUDIENCE),
            lambda: self.now,
        )

    async def verify(self, token: str) -> Bearer:
        return await self.verifier.verify(token)


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

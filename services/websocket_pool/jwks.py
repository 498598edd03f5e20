"""The public keys that an issuer of tokens publishes (JWKS), cached, with rotation."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from mt5kit.errors import Unauthenticated, Unavailable
from websocket_pool.compact import Document, document

FRESH_S: Final = 600.0
"""A key that is withdrawn is taken for so long; Supabase announces new ones longer ahead."""

STALE_S: Final = 3600.0
"""While the issuer does not answer, keys serve on for as long as a token usually lives."""

PAUSE_S: Final = 30.0
"""However many tokens name unknown keys, the issuer is asked no more often than this."""

EMPTY_PAUSE_S: Final = 5.0
"""While no key is known at all, nobody gets in: the issuer is asked more often."""

FETCH_LIMIT_S: Final = 3.0
"""For the whole answer; a client waits 10 s at the most to be let in."""

LARGEST_ANSWER: Final = 65_536
"""Two keys are 1 KB."""

_ALGORITHMS: Final = {"EC": "ES256", "RSA": "RS256"}
_SMALLEST_RSA: Final = 2048
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and the one algorithm it is for.

    Args:
        algorithm: As tokens name it.
        material: What verifies.
    """

    algorithm: str
    material: EllipticCurvePublicKey | RSAPublicKey | bytes = field(repr=False)


class RemoteKeys:
    """The keys at an address: fetched when first asked for, and again when they are old.

    One request at a time, however many wait, and a caller who goes away does not end it. A
    redirect is not followed, nor is an answer read that is large, slow or compressed.

    Args:
        url: Where they are: https, or http to this very machine.
        client: To fetch with; is not closed here. Its `verify` says whom to trust.
        clock: Monotonic seconds.

    Raises:
        ValueError: The address is no such URL.
    """

    def __init__(
        self, url: str, client: httpx.AsyncClient, clock: Callable[[], float] = time.monotonic
    ) -> None:
        _check(url)
        self._url = url
        self._client = client
        self._clock = clock
        self._keys: Mapping[str, Key] = {}
        self._read_at = float("-inf")
        self._asked_at = float("-inf")
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> Key:
        """The key of a name.

        Raises:
            Unauthenticated: The issuer publishes no such key.
            Unavailable: What it publishes is not known just now.
        """
        if kid not in self._keys or self._age() > FRESH_S:
            await self._refresh()
        keys = self._keys if self._age() <= STALE_S else {}
        if kid in keys:
            return keys[kid]
        if self._failed or not keys:
            raise Unavailable("the keys of tokens cannot be read now", retry_after_s=EMPTY_PAUSE_S)
        raise Unauthenticated("the token is signed with a key that its issuer does not publish")

    def _age(self) -> float:
        return self._clock() - self._read_at

    async def _refresh(self) -> None:
        """Read them anew, unless they have just been asked for."""
        if self._fetching is None:
            pause = PAUSE_S if self._keys and self._age() <= STALE_S else EMPTY_PAUSE_S
            if self._clock() - self._asked_at < pause:
                return
            self._asked_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_LIMIT_S):
                found = _keys_in(await self._read())
        except (httpx.HTTPError, TimeoutError, ValueError) as failure:
            self._failed = True
            log.warning("jwks_not_read", url=self._url, why=repr(failure))
        else:
            self._keys, self._read_at, self._failed = found, self._clock(), False
        finally:
            self._fetching = None

    async def _read(self) -> bytes:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        request = self._client.build_request(
            "GET", self._url, headers=headers, timeout=FETCH_LIMIT_S
        )
        answer = await self._client.send(request, stream=True, auth=None, follow_redirects=False)
        try:
            if answer.status_code != httpx.codes.OK:
                raise _Unusable(f"status {answer.status_code}")
            body = b""
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise _Unusable(f"more than {LARGEST_ANSWER} bytes")
            return body
        finally:
            await answer.aclose()


class _Unusable(ValueError):
    """An answer that holds no keys."""


def _check(url: str) -> None:
    """Refuse an address from which keys could be anybody's."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as invalid:
        raise ValueError("the address of the keys of tokens is no URL") from invalid
    if parsed.userinfo:
        raise ValueError("the address of the keys of tokens holds a password")
    secure = parsed.scheme == "https" or (parsed.scheme == "http" and parsed.host in _LOOPBACK)
    if not (secure and parsed.host):
        raise ValueError("the keys of tokens are read by https, or by http from this very machine")


def _keys_in(body: bytes) -> Mapping[str, Key]:
    """The keys of a JWKS that we can use, by their names; of two with one name, the first."""
    listed = document(body).get("keys")
    if not isinstance(listed, list):
        raise _Unusable("no list of keys")
    keys: dict[str, Key] = {}
    for one in listed:
        key = _key_of(one) if isinstance(one, dict) else None
        if key is not None:
            keys.setdefault(one["kid"], key)
    if not keys:
        raise _Unusable("no key that we can use")
    return keys


def _key_of(jwk: Document) -> Key | None:
    """A public key for signatures, or None: secrets and private keys are not for publishing."""
    algorithm = _ALGORITHMS.get(str(jwk.get("kty")))
    operations = jwk.get("key_ops", ["verify"])
    if (
        algorithm is None
        or not isinstance(jwk.get("kid"), str)
        or jwk.get("alg", algorithm) != algorithm
        or jwk.get("use", "sig") != "sig"
        or not (isinstance(operations, list) and "verify" in operations)
    ):
        return None
    try:
        material = PyJWK(jwk, algorithm).key
    except (PyJWTError, ValueError, TypeError):
        return None
    return Key(algorithm, material) if _strong(material) else None


def _strong(material: object) -> bool:
    """Whether it is a public key, and of a size that counts."""
    if isinstance(material, RSAPublicKey):
        return material.key_size >= _SMALLEST_RSA
    return isinstance(material, EllipticCurvePublicKey) and isinstance(material.curve, SECP256R1)

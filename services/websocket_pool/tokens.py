"""Tokens of Supabase: who somebody is, signed by the issuer that this replica trusts."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self, TypeGuard
from uuid import UUID

import httpx
from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidTokenError, PyJWTError
from pydantic import SecretStr

from mt5kit.errors import Unauthenticated
from websocket_pool.compact import Document, document, header_of, malformed
from websocket_pool.jwks import Key, RemoteKeys

LEEWAY_S: Final = 30.0
"""An issuer's clock may be ahead of ours. It does not prolong a token."""

LONGEST_LIFE_S: Final = 7 * 24 * 3600.0
"""The longest that Supabase can be set to; what lives longer is a key and not a session."""

SMALLEST_SECRET: Final = 32
"""Bytes; a shorter secret of HS256 can be found by trying (RFC 7518, 3.2)."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token is about.

    Args:
        user_id: The user.
        expires_s: Seconds of the epoch at which the token ends.
    """

    user_id: UUID
    expires_s: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token must say.

    Args:
        issuer: Who issued it.
        audience: For whom.
    """

    issuer: str
    audience: str


class TokenVerifier:
    """Verifies tokens. Make it with `of`.

    A key decides how it verifies, never the token: the secret does HS256 and nothing else, a
    published key the algorithm of its own type. What a token says of its algorithm only chooses
    whether the secret is asked or the published keys are, and must be what the key found does.

    Args:
        secret: For HS256, if such tokens are accepted.
        published: The issuer's public keys, if such tokens are accepted.
        terms: What tokens must say.
        clock: Seconds of the epoch.
    """

    def __init__(
        self,
        secret: Key | None,
        published: RemoteKeys | None,
        terms: Terms,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secret
        self._published = published
        self._terms = terms
        self._clock = clock

    @classmethod
    def of(
        cls,
        *,
        secret: SecretStr | None,
        jwks_url: str | None,
        issuer: str | None,
        audience: str,
        client: httpx.AsyncClient,
    ) -> Self:
        """A verifier by settings; without a secret and a URL it refuses every token.

        Args:
            secret: Of HS256, 32 bytes or more.
            jwks_url: Where the issuer publishes its keys; see `RemoteKeys`.
            issuer: Must be given with either of them.
            audience: Likewise.
            client: Fetches keys; is not closed here.

        Raises:
            ValueError: A setting cannot be used.
        """
        if (secret or jwks_url) and not (issuer and audience):
            raise ValueError("tokens are accepted only of a known issuer for a known audience")
        return cls(
            _secret(secret.get_secret_value()) if secret else None,
            RemoteKeys(jwks_url, client) if jwks_url else None,
            Terms(issuer or "", audience),
        )

    async def verify(self, token: str) -> Bearer:
        """Whom a token is about; may wait some 3 s for the issuer's keys.

        A user who has signed in anonymously is refused: anybody can make such users, and what
        these sockets show is somebody's money. So are the tokens of services.

        Raises:
            Unauthenticated: The token is not good, in words for whoever presents it.
            Unavailable: The issuer's keys cannot be read now.
        """
        if self._secret is None and self._published is None:
            raise Unauthenticated("tokens are not accepted here: use a ticket")
        header = header_of(token)
        if "crit" in header:
            raise Unauthenticated("the token asks for extensions that are not known here")
        key = await self._key_for(header)
        return self._bearer(_proven(token, key))

    async def _key_for(self, header: Document) -> Key:
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm == "HS256" and self._secret is not None:
            return self._secret
        if self._published is None or algorithm not in ("ES256", "RS256"):
            raise Unauthenticated("tokens signed in this way are not accepted here")
        if not isinstance(kid, str):
            raise Unauthenticated("the token does not name the key it is signed with (kid)")
        return await self._published.key(kid)

    def _bearer(self, claims: Document) -> Bearer:
        audience = claims.get("aud")
        if claims.get("iss") != self._terms.issuer:
            raise Unauthenticated("the token is of another issuer")
        if self._terms.audience not in (audience if isinstance(audience, list) else [audience]):
            raise Unauthenticated("the token is for another audience")
        expires_s = self._expiry(claims)
        if claims.get("role") != "authenticated":
            raise Unauthenticated("the token is not of a user who has signed in")
        if claims.get("is_anonymous", False) is not False:
            raise Unauthenticated("the token is of an anonymous user: sign in first")
        return Bearer(_user(claims.get("sub")), expires_s)

    def _expiry(self, claims: Document) -> float:
        now = self._clock()
        expires = claims.get("exp")
        if not _is_number(expires):
            raise Unauthenticated("the token does not say when it expires (exp)")
        if expires <= now:
            raise Unauthenticated("the token has expired: sign in again")
        if expires > now + LONGEST_LIFE_S:
            raise Unauthenticated("the token lives too long: a week is the most")
        for name in ("nbf", "iat"):
            begins = claims.get(name, 0)
            if not _is_number(begins) or begins > now + LEEWAY_S:
                raise Unauthenticated(f"the token is not valid yet ({name})")
        return float(expires)


def _secret(text: str) -> Key:
    """The key of a shared secret.

    Raises:
        ValueError: It is short, or is a public key that somebody took for one.
    """
    material = text.encode()
    if len(material) < SMALLEST_SECRET:
        raise ValueError(f"the secret of tokens has less than {SMALLEST_SECRET} bytes")
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(material)
    except PyJWTError:
        usable = False
    else:
        usable = True
    if not usable:
        raise ValueError("the secret of tokens is a key that is public")
    return Key("HS256", material)


def _proven(token: str, key: Key) -> Document:
    """What the holder of the key has signed."""
    try:
        return document(PyJWS().decode(token, key.material, algorithms=[key.algorithm]))
    except InvalidTokenError:
        refusal = Unauthenticated("the signature of the token is not good")
    except ValueError:
        refusal = malformed()
    # Without a context: what the exceptions of decoders hold is the token.
    raise refusal


def _user(subject: object) -> UUID:
    try:
        user_id = UUID(subject) if isinstance(subject, str) else None
    except ValueError:
        user_id = None
    # UUID also takes braces, prefixes and other spellings.
    if user_id is None or str(user_id) != str(subject).lower():
        raise Unauthenticated("the token is not about a user (sub)")
    return user_id


def _is_number(value: object) -> TypeGuard[float]:
    """JSON's true is one for Python, too."""
    return isinstance(value, int | float) and not isinstance(value, bool)

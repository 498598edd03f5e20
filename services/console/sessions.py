"""Who is signed in: signed cookies, and secrets compared in constant time."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final

# An operator's working day; then the password or a new link is asked for again.
SESSION_LIFETIME_S: Final = 12 * 3600
# Cookies that were signed out early; the oldest are forgotten first.
MOST_ENDED: Final = 10_000


def same_secret(given: str, expected: str) -> bool:
    """Whether two secrets are equal; takes the same time wherever they differ."""
    return hmac.compare_digest(_digest(given), _digest(expected))


class OneTimeToken:
    """A token that is worth one sign-in. None is worth nothing."""

    def __init__(self, token: str | None) -> None:
        self._digest = None if token is None else _digest(token)

    def spend(self, given: str) -> bool:
        """Whether this is the token, and nobody has come with it before."""
        if self._digest is None or not hmac.compare_digest(_digest(given), self._digest):
            return False
        self._digest = None
        return True


class Sessions:
    """Makes and checks session cookies: `<expires>.<nonce>.<signature>`, no store needed.

    Signing out is remembered in this process only; elsewhere the cookie lives until it expires.

    Args:
        secret: Signs; the same on every replica.
        lifetime_s: Seconds a session lasts.
        clock: Epoch seconds now.
    """

    def __init__(
        self,
        secret: str,
        *,
        lifetime_s: int = SESSION_LIFETIME_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = secret.encode()
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._ended: dict[str, None] = {}

    def issue(self) -> str:
        """A cookie for somebody who has just signed in."""
        body = f"{int(self._clock()) + self._lifetime_s}.{secrets.token_urlsafe(16)}"
        return f"{body}.{self._sign(body)}"

    def valid(self, cookie: str) -> bool:
        """Whether this is a session of ours that has not ended."""
        body, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign(body).encode(), signature.encode()):
            return False
        return cookie not in self._ended and int(body.partition(".")[0]) > self._clock()

    def end(self, cookie: str) -> None:
        """Sign a cookie out; one that is no session is ignored."""
        if not self.valid(cookie):
            return
        self._ended[cookie] = None
        if len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def _sign(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

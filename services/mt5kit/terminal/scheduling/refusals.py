"""Credentials the broker has refused: remembered, so that they are never tried again."""

import hashlib
import math
import secrets
from typing import Final

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.errors import LoginRefused
from mt5kit.terminal.credentials import Credentials

# Passwords of two accounts seldom change within a minute: it is the broker that limits logins.
SECOND_WITHIN_S: Final = 60.0
PAUSE_S: Final = 600.0


class RefusalMemory:
    """One refusal by account, told apart by a keyed hash of the credentials.

    The key is random and lives in this object alone: the hash is of no use elsewhere.

    A broker that limits logins refuses good credentials too. So it is also remembered which
    servers refused logins nobody waited for; instants are seconds of one monotonic clock, that
    of all schedulers which share the memory.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._refused: dict[str, tuple[bytes, AccountIdentity, LoginRefused]] = {}
        self._last_spare: dict[str, tuple[str, float]] = {}
        self._paused: dict[str, float] = {}

    def remember(self, account_id: str, credentials: Credentials, error: LoginRefused) -> None:
        """Keep a refusal until `clear` or `proven`; it replaces the account's earlier one."""
        fingerprint = self._fingerprint(credentials)
        self._refused[account_id] = (fingerprint, credentials.identity, error)

    def knows(self, account_id: str) -> bool:
        """Whether any credentials of the account were refused."""
        return account_id in self._refused

    def check(self, account_id: str, credentials: Credentials) -> None:
        """Let pass what has not been refused.

        Raises:
            LoginRefused: These very credentials were refused; as the broker said it then.
        """
        known = self._refused.get(account_id)
        if known is not None and secrets.compare_digest(known[0], self._fingerprint(credentials)):
            raise LoginRefused(known[2].message, details=known[2].details)

    def proven(self, identity: AccountIdentity) -> None:
        """Forget refusals of an account that has just logged in."""
        for account_id in [key for key, known in self._refused.items() if known[1] == identity]:
            del self._refused[account_id]

    def clear(self, account_id: str) -> None:
        """Forget the account's refusal: it is gone, or its credentials have proven themselves."""
        self._refused.pop(account_id, None)

    def clear_all(self) -> None:
        """Forget every account's refusal; pauses of servers go on."""
        self._refused.clear()

    def spare_refused(self, account_id: str, server: str, now: float) -> bool:
        """A server refused a login nobody waited for; whether such logins are paused from now.

        Args:
            account_id: Whose login.
            server: The broker server.
            now: When.
        """
        last_account, last_at = self._last_spare.get(server, (account_id, now))
        self._last_spare[server] = (account_id, now)
        second = last_account != account_id and now - last_at <= SECOND_WITHIN_S
        if not second or self.paused_until(server) > now:
            return False
        self._paused[server] = now + PAUSE_S
        return True

    def paused_until(self, server: str) -> float:
        """Until when no login is made there that nobody waits for; in the past if now."""
        return self._paused.get(server, -math.inf)

    def _fingerprint(self, credentials: Credentials) -> bytes:
        identity = credentials.identity
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        digest.update(repr((identity.login, identity.server)).encode())
        digest.update(credentials.password.reveal().encode())
        return digest.digest()

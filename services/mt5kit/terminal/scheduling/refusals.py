"""Credentials the broker has refused: remembered, so that they are never tried again."""

import hashlib
import secrets

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.errors import LoginRefused
from mt5kit.terminal.credentials import Credentials


class RefusalMemory:
    """One refusal by account, told apart by a keyed hash of the credentials.

    The key is random and lives in this object alone: the hash is of no use elsewhere.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._refused: dict[str, tuple[bytes, AccountIdentity, LoginRefused]] = {}

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

    def _fingerprint(self, credentials: Credentials) -> bytes:
        identity = credentials.identity
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        digest.update(repr((identity.login, identity.server)).encode())
        digest.update(credentials.password.reveal().encode())
        return digest.digest()

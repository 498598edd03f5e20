"""Passwords of the roles that services log in as, set by the database's owner."""

import base64
import hashlib
import hmac
import secrets
from typing import Final

import asyncpg

from mt5kit.secret import Secret
from mt5kit.state.postgres.database import ACQUIRE_TIMEOUT_S, Database, answering

ROUNDS: Final = 4096
"""PostgreSQL's own default; the passwords are random, so that more would only slow logins down."""


class RolePasswords:
    """Sets passwords that the server never sees: it is given what proves them, as after a login.

    Args:
        owner: The database as a role that may alter these roles.
    """

    def __init__(self, owner: Database) -> None:
        self._owner = owner

    async def admits(self, dsn: str) -> bool:
        """Whether the server lets somebody in with this URL.

        Raises:
            DatabaseUnavailable: It is away.
            DatabaseFault: It refuses for another reason than the password.
        """
        with answering():
            try:
                connection = await asyncpg.connect(dsn, timeout=ACQUIRE_TIMEOUT_S)
            except asyncpg.InvalidAuthorizationSpecificationError:
                # Without a password, or with another one; or the role may not log in at all.
                return False
            await connection.close()
        return True

    async def set(self, role: str, password: Secret) -> None:
        """Give a role this password.

        Raises:
            ValueError: The password is empty or not ASCII.
            DatabaseFault: There is no such role, or the owner may not alter it.
        """
        async with self._owner.transaction() as connection:
            # ALTER ROLE takes no parameters.
            statement = await connection.fetchval(
                "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)",
                *(role, scram_verifier(password)),
            )
            await connection.execute(statement)


def scram_verifier(password: Secret, salt: bytes | None = None) -> str:
    """What PostgreSQL keeps of a password under SCRAM-SHA-256 (RFC 5803).

    Raises:
        ValueError: The password is empty or not ASCII: others would have to be normalised first.
    """
    text = password.reveal()
    if not text or not text.isascii():
        raise ValueError("a password must be ASCII, and not empty")
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", text.encode(), salt, ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(ROUNDS, *parts)

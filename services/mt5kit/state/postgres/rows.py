"""What is read from the accounts table, and how."""

import hashlib
import re
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import asyncpg
import msgspec

from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.errors import AccountNotFound
from mt5kit.vault import AccountBinding, Sealed

if TYPE_CHECKING:
    from mt5kit.state.postgres.database import Connection

T = TypeVar("T")

ACCOUNT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""No other can be in the table, and Postgres would refuse some (NUL) as no text at all."""

ACCOUNT_COLUMNS = """
    id, uuid, account_id, user_id, login, server, state, connecting_from, last_error, is_active,
    (extract(epoch FROM state_since) * 1000)::bigint AS state_since_ms,
    (extract(epoch FROM last_login) * 1000)::bigint AS last_login_ms,
    (extract(epoch FROM last_poll) * 1000)::bigint AS last_poll_ms
"""


RECORD_STANDING = """
    state = CASE state WHEN 'connecting' THEN state ELSE $2 END,
    connecting_from = CASE state WHEN 'connecting' THEN $2 END,
    last_error = $3
"""
"""Sets where an account stands ($2) and why ($3), behind a connect under way if there is one."""


class AccountError(msgspec.Struct, frozen=True):
    """Why an account is in its state: a code of the contracts and a sentence for a person."""

    code: str
    message: str


class AccountRow(msgspec.Struct, frozen=True):
    """An account without its credentials. Times are epoch milliseconds, UTC.

    `connecting_from` is where it stood before new credentials came to be proven, and None unless
    it is `connecting`.
    """

    id: int
    uuid: UUID
    account_id: str
    user_id: UUID
    identity: AccountIdentity
    state: AccountState
    state_since_ms: int
    last_error: AccountError | None
    is_active: bool
    last_login_ms: int | None
    last_poll_ms: int | None
    connecting_from: AccountState | None = None

    @property
    def standing(self) -> AccountState:
        """Where it stands with the credentials that are stored, whatever is being proven now."""
        return self.connecting_from or self.state


class StoredLogin(msgspec.Struct, frozen=True):
    """Credentials as they are stored; the vault opens `sealed` with `binding`."""

    id: int
    binding: AccountBinding
    sealed: Sealed

    @property
    def identity(self) -> AccountIdentity:
        """What the terminal must report after a login with them."""
        return AccountIdentity(self.binding.login, self.binding.server)

    @property
    def seal(self) -> bytes:
        """A digest of the sealed password: other for every connect, the same under every key."""
        return hashlib.sha256(self.sealed.ciphertext).digest()


class Standing(msgspec.Struct, frozen=True):
    """Whose an account is, and where it stands.

    Args:
        row_id: `accounts.id`.
        user_id: Its user.
        state: Where it stands with the credentials that are stored: while others are being
            proven, where it stood before. So credentials that the broker refused stay refused
            meanwhile.
    """

    row_id: int
    user_id: UUID
    state: AccountState


class WorkerLogin(msgspec.Struct, frozen=True):
    """Stored credentials, and their account at the same moment.

    Args:
        login: The credentials.
        user_id: Whose account it is.
        state: Where the account stands with them, as in `Standing`.
        connecting: Whether others are being proven now.
    """

    login: StoredLogin
    user_id: UUID
    state: AccountState
    connecting: bool = False

    @property
    def row_id(self) -> int:
        """`accounts.id`."""
        return self.login.id


def account_row(row: asyncpg.Record) -> AccountRow:
    """The account in a row of `ACCOUNT_COLUMNS`."""
    error = row["last_error"]
    return AccountRow(
        id=row["id"],
        uuid=row["uuid"],
        account_id=row["account_id"],
        user_id=row["user_id"],
        identity=AccountIdentity(row["login"], row["server"]),
        state=AccountState(row["state"]),
        state_since_ms=row["state_since_ms"],
        last_error=None if error is None else msgspec.json.decode(error, type=AccountError),
        is_active=row["is_active"],
        last_login_ms=row["last_login_ms"],
        last_poll_ms=row["last_poll_ms"],
        connecting_from=AccountState(row["connecting_from"]) if row["connecting_from"] else None,
    )


async def fetch_login(
    connection: "Connection", account_id: str, user_id: UUID | None = None
) -> StoredLogin:
    """The credentials of an account in the transaction's scope, and of that user if one is given.

    Raises:
        AccountNotFound: There is none of that id in it.
    """
    row = await connection.fetchrow(
        "SELECT id, uuid, login, server, encrypted_password, wrapped_key, encryption_key_id"
        " FROM accounts WHERE account_id = $1 AND ($2::uuid IS NULL OR user_id = $2)",
        *(account_id, user_id),
    )
    row = found(row, account_id)
    return StoredLogin(
        id=row["id"],
        binding=AccountBinding(row["uuid"], row["login"], row["server"]),
        sealed=Sealed(row["encrypted_password"], row["wrapped_key"], row["encryption_key_id"]),
    )


def check_id(account_id: str) -> None:
    """Spare Postgres what cannot be an id.

    Raises:
        AccountNotFound: It cannot.
    """
    if not ACCOUNT_ID.fullmatch(account_id):
        raise not_found(account_id)


def found(value: T | None, account_id: str) -> T:
    """The value, if the statement reached a row.

    Raises:
        AccountNotFound: It did not.
    """
    if value is None:
        raise not_found(account_id)
    return value


def not_found(account_id: str) -> AccountNotFound:
    """The error for an id that is unknown, or another user's: the two look alike."""
    return AccountNotFound(f"no account {account_id!r}")

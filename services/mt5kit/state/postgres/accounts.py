"""Accounts as their users see them. Runs as `mt5_app`."""

from collections.abc import Callable
from uuid import UUID, uuid4

import asyncpg

from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.errors import Conflict
from mt5kit.state.postgres.audit import AuditEntry, append_audit
from mt5kit.state.postgres.database import Database, json_text
from mt5kit.state.postgres.rows import (
    ACCOUNT_COLUMNS,
    ACCOUNT_ID,
    RECORD_STANDING,
    AccountError,
    AccountRow,
    StoredLogin,
    account_row,
    check_id,
    fetch_login,
    found,
    not_found,
)
from mt5kit.vault import AccountBinding, Sealed

_SAVE_ATTEMPTS = 2
"""A second look finds the row of whoever was first, if it is the same user's."""

# Row security says whose rows these are; the statements say so too, for a role that it spares.
_SELECT = f"""
    SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE account_id = $1 AND user_id = $2
"""  # noqa: S608 - joined from constants

_LIST = f"""
    SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE user_id = $1 ORDER BY account_id
"""  # noqa: S608 - joined from constants

_INSERT = f"""
    INSERT INTO accounts (account_id, uuid, user_id, login, server,
        encrypted_password, wrapped_key, encryption_key_id, state, last_login)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'connected', now())
    RETURNING {ACCOUNT_COLUMNS}
"""  # noqa: S608 - joined from constants

_REPLACE = f"""
    UPDATE accounts SET login = $4, server = $5, encrypted_password = $6, wrapped_key = $7,
        encryption_key_id = $8, state = 'connected', last_error = NULL, last_login = now(),
        is_active = TRUE
    WHERE account_id = $1 AND uuid = $2 AND user_id = $3
    RETURNING {ACCOUNT_COLUMNS}
"""  # noqa: S608 - joined from constants


class AccountStore:
    """A user's accounts. Another user's are as absent as those that never were."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: UUID, account_id: str) -> AccountRow | None:
        """The account, or None if this user has none of that id."""
        if not ACCOUNT_ID.fullmatch(account_id):
            return None
        async with self._database.transaction(user_id=user_id) as connection:
            row = await connection.fetchrow(_SELECT, account_id, user_id)
        return account_row(row) if row else None

    async def list(self, user_id: UUID) -> tuple[AccountRow, ...]:
        """All accounts of the user, by id."""
        async with self._database.transaction(user_id=user_id) as connection:
            rows = await connection.fetch(_LIST, user_id)
        return tuple(account_row(row) for row in rows)

    async def save_login(
        self,
        user_id: UUID,
        account_id: str,
        identity: AccountIdentity,
        seal: Callable[[AccountBinding], Sealed],
    ) -> AccountRow:
        """Store credentials that the broker has accepted; the account becomes `connected`.

        A new account gets a uuid, a known one keeps its own. Which it is shows only inside the
        transaction, and the seal is bound to it; so the caller hands over how to seal, and of
        two connects of one account at one time the later replaces the earlier whole.

        Args:
            user_id: Whose it is.
            account_id: The caller's identifier.
            identity: What the terminal reported after the login.
            seal: Seals the password for a binding; called once or twice, must not block.

        Raises:
            AccountNotFound: The id is another user's.
            Conflict: The login at that server is held under another id.
        """
        check_id(account_id)
        for _ in range(_SAVE_ATTEMPTS):
            try:
                return await self._save_login(user_id, account_id, identity, seal)
            except asyncpg.UniqueViolationError as taken:
                if taken.constraint_name == "accounts_login_server_key":
                    raise Conflict(
                        f"login {identity.login} at {identity.server} is held under another id"
                    ) from None
        raise not_found(account_id)

    async def _save_login(
        self,
        user_id: UUID,
        account_id: str,
        identity: AccountIdentity,
        seal: Callable[[AccountBinding], Sealed],
    ) -> AccountRow:
        async with self._database.transaction(user_id=user_id) as connection:
            known: UUID | None = await connection.fetchval(
                "SELECT uuid FROM accounts WHERE account_id = $1 AND user_id = $2 FOR UPDATE",
                *(account_id, user_id),
            )
            uuid = known or uuid4()
            sealed = seal(AccountBinding(uuid, identity.login, identity.server))
            row = await connection.fetchrow(
                _REPLACE if known else _INSERT,
                *(account_id, uuid, user_id, identity.login, identity.server),
                *(sealed.ciphertext, sealed.wrapped_key, sealed.key_id),
            )
        return account_row(found(row, account_id))

    async def connecting(self, user_id: UUID, account_id: str) -> AccountRow | None:
        """Say that new credentials are being proven for the account, if there is one.

        Its stored credentials stay in use meanwhile, as `AccountRow.standing` permits.
        `save_login` ends it, or `connect_failed`; failing both, `WorkerStore.mend_connecting`.

        Returns:
            The account as it stood before, for `connect_failed`; None if this user has none of
            that id. Under a connect that is already under way it is `connecting` as it is.
        """
        if not ACCOUNT_ID.fullmatch(account_id):
            return None
        async with self._database.transaction(user_id=user_id) as connection:
            row = await connection.fetchrow(_SELECT + "FOR NO KEY UPDATE", account_id, user_id)
            if row is None:
                return None
            await connection.execute(
                "UPDATE accounts SET state = 'connecting'"
                " WHERE account_id = $1 AND user_id = $2 AND state <> 'connecting'",
                *(account_id, user_id),
            )
        return account_row(row)

    async def connect_failed(self, before: AccountRow) -> None:
        """Put the account back where it stood, with its old credentials and its old error.

        Only while it is still `connecting` under the uuid it had: a disconnect, a deletion or a
        connect that has succeeded meanwhile stays. What was recorded of the old credentials
        meanwhile (`move_state`) is where it returns.

        Args:
            before: From `connecting`.
        """
        async with self._database.transaction(user_id=before.user_id) as connection:
            await connection.execute(
                "UPDATE accounts SET state = connecting_from"
                " WHERE uuid = $1 AND user_id = $2 AND state = 'connecting'",
                *(before.uuid, before.user_id),
            )

    async def set_state(
        self, user_id: UUID, account_id: str, state: AccountState, error: AccountError | None = None
    ) -> None:
        """Record where the account stands, and why if it is not well.

        Raises:
            AccountNotFound: This user has none of that id.
        """
        check_id(account_id)
        async with self._database.transaction(user_id=user_id) as connection:
            changed = await connection.fetchval(
                "UPDATE accounts SET state = $3, last_error = $4"
                " WHERE account_id = $1 AND user_id = $2 RETURNING 1",
                *(account_id, user_id, state.value, error and json_text(error)),
            )
        found(changed, account_id)

    async def move_state(
        self,
        seen: AccountRow,
        state: AccountState,
        error: AccountError | None = None,
    ) -> bool:
        """Record a change that was observed, unless somebody has moved the account meanwhile.

        A read that began before its owner disconnected the account, or before new credentials
        came, must not undo either. Behind a connect under way the account stays `connecting`,
        and what is recorded is where it returns if that fails.

        Args:
            seen: The account as it stood when the observation began.
            state: The state it found.
            error: Why, if it is not well.

        Returns:
            Whether the account still stood as it was seen.
        """
        async with self._database.transaction(user_id=seen.user_id) as connection:
            moved = await connection.fetchval(
                f"UPDATE accounts SET {RECORD_STANDING}"  # noqa: S608 - a constant
                " WHERE account_id = $1 AND user_id = $4"
                " AND coalesce(connecting_from, state) = $5"
                " AND (extract(epoch FROM last_login) * 1000)::bigint IS NOT DISTINCT FROM $6"
                " RETURNING 1",
                *(seen.account_id, state.value, error and json_text(error)),
                *(seen.user_id, seen.standing.value, seen.last_login_ms),
            )
        return moved is not None

    async def sealed_password(self, user_id: UUID, account_id: str) -> StoredLogin:
        """The stored credentials.

        Raises:
            AccountNotFound: This user has none of that id.
        """
        check_id(account_id)
        async with self._database.transaction(user_id=user_id) as connection:
            return await fetch_login(connection, account_id, user_id)

    async def delete(self, user_id: UUID, account_id: str, audit: AuditEntry | None = None) -> None:
        """Erase the account, its credentials and its history, and append the audit row with it.

        Raises:
            AccountNotFound: This user has none of that id; then nothing is appended either.
        """
        check_id(account_id)
        async with self._database.transaction(user_id=user_id) as connection:
            erased = await connection.fetchval(
                "DELETE FROM accounts WHERE account_id = $1 AND user_id = $2 RETURNING 1",
                *(account_id, user_id),
            )
            found(erased, account_id)
            if audit is not None:
                await append_audit(connection, audit)

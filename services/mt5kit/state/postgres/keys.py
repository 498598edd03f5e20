"""The keys that stored passwords are wrapped under. Runs as `mt5_keys`, which reads no password."""

from collections.abc import Sequence

import msgspec

from mt5kit.state.postgres.database import Database
from mt5kit.vault import AccountBinding, Sealed

_SELECT = """
    SELECT id, uuid, login, server, wrapped_key, encryption_key_id FROM accounts
    WHERE encryption_key_id <> $1 AND id > $2 ORDER BY id LIMIT $3
"""

# The old wrapped key is compared: new credentials that came meanwhile brought their own.
_REPLACE = """
    UPDATE accounts SET wrapped_key = fresh.wrapped_key, encryption_key_id = fresh.key_id
    FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::text[])
        AS fresh (id, old_key, wrapped_key, key_id)
    WHERE accounts.id = fresh.id AND accounts.wrapped_key = fresh.old_key
    RETURNING accounts.id
"""


class WrappedRow(msgspec.Struct, frozen=True):
    """The wrapped key of an account's password; `id` is `accounts.id`.

    `sealed` has no ciphertext: to wrap a key anew it takes none.
    """

    id: int
    binding: AccountBinding
    sealed: Sealed


class KeyStore:
    """Wrapped keys of all accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counts(self) -> dict[str, int]:
        """How many accounts are under each key, by key id."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                "SELECT encryption_key_id, count(*) AS accounts FROM accounts"
                " GROUP BY encryption_key_id ORDER BY encryption_key_id"
            )
        return {row["encryption_key_id"]: row["accounts"] for row in rows}

    async def not_under(self, key_id: str, *, after: int, most: int) -> tuple[WrappedRow, ...]:
        """Up to `most` rows that are under another key, with ids above `after`, by id."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SELECT, key_id, after, most)
        return tuple(
            WrappedRow(
                row["id"],
                AccountBinding(row["uuid"], row["login"], row["server"]),
                Sealed(b"", row["wrapped_key"], row["encryption_key_id"]),
            )
            for row in rows
        )

    async def replace(self, rows: Sequence[tuple[WrappedRow, Sealed]]) -> int:
        """Write new wrapped keys where the old ones still stand; how many rows that were."""
        columns = (
            [row.id for row, _ in rows],
            [row.sealed.wrapped_key for row, _ in rows],
            [fresh.wrapped_key for _, fresh in rows],
            [fresh.key_id for _, fresh in rows],
        )
        async with self._database.transaction() as connection:
            return len(await connection.fetch(_REPLACE, *columns))

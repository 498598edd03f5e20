"""Accounts as the use cases see them: rows of Postgres, and the vault that opens passwords."""

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.instants import iso_utc
from mt5kit.errors import AccountNotFound, Conflict, LoginRefused, Mt5SwarmError
from mt5kit.state.postgres import (
    AccountError,
    AccountRow,
    AccountStore,
    AuditEntry,
    DatabaseUnavailable,
)
from mt5kit.terminal.credentials import Credentials
from mt5kit.vault import AccountBinding, Sealed, Vault

log = structlog.get_logger(__name__)

# How late a read may notice that an account was disconnected or deleted when the message that
# tells of it is lost.
ROW_TTL_S: Final = 2.0
# Far more accounts than are read within two seconds.
MOST_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class KnownAccount:
    """An account that belongs to the user who asks, as it stood when the request came."""

    row: AccountRow

    @property
    def account_id(self) -> str:
        """The caller's identifier."""
        return self.row.account_id

    @property
    def identity(self) -> AccountIdentity:
        """What the terminal must report."""
        return self.row.identity

    @property
    def state(self) -> AccountState:
        """Where it stood."""
        return self.row.state

    def require_connected(self) -> None:
        """Refuse what needs a session when there is to be none.

        Raises:
            Conflict: The account was disconnected by its owner.
            LoginRefused: The broker refused its credentials; no second try with the same ones.
        """
        # While other credentials are being proven the stored ones stay in use.
        standing = self.row.standing
        if standing is AccountState.DISCONNECTED:
            raise Conflict(
                "the account is disconnected; connect it again", details={"state": standing}
            )
        if standing is AccountState.LOGIN_FAILED:
            raise LoginRefused(
                "the broker refused this account's credentials; connect it with new ones",
                details={"state": standing, "since": iso_utc(self.row.state_since_ms)},
            )


class AccountCache:
    """The users' accounts as they stood at most `ROW_TTL_S` ago.

    An account belongs to one user, so a row is kept by its account's id and given only to its
    user; what another user asks is asked of the database. Who misses a row that is being read
    waits for that reading.

    Args:
        read: Reads the row of a user's account, None if there is none.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        read: Callable[[UUID, str], Awaitable[AccountRow | None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._clock = clock
        self._rows: OrderedDict[str, tuple[KnownAccount, float]] = OrderedDict()
        self._readings: defaultdict[str, dict[UUID, asyncio.Task[KnownAccount | None]]]
        self._readings = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._rows)

    def kept(self, user_id: UUID, account_id: str) -> KnownAccount | None:
        """The account, if it is in memory and young enough."""
        entry = self._rows.get(account_id)
        if entry is None or entry[0].row.user_id != user_id or self._clock() >= entry[1]:
            return None
        return entry[0]

    async def get(self, user_id: UUID, account_id: str) -> KnownAccount | None:
        """The account from memory or the database; None if this user has none of that id.

        Raises:
            DatabaseUnavailable: It is not in memory, and the database is away.
        """
        account = self.kept(user_id, account_id)
        if account is not None:
            return account
        reading = self._readings[account_id].get(user_id)
        if reading is None:
            reading = asyncio.create_task(self._reading(user_id, account_id))
            self._readings[account_id][user_id] = reading
            reading.add_done_callback(lambda done: self._done(user_id, account_id, done))
        # Who hangs up does not take the reading from the others.
        return await asyncio.shield(reading)

    def invalidate(self, account_id: str) -> None:
        """Forget the row; a reading under way answers those who wait and is kept by nobody."""
        self._rows.pop(account_id, None)
        self._readings.pop(account_id, None)

    def invalidate_all(self) -> None:
        """Forget all rows, as `invalidate` does."""
        self._rows.clear()
        self._readings.clear()

    async def _reading(self, user_id: UUID, account_id: str) -> KnownAccount | None:
        # The row is as old as the question, not as its answer.
        until = self._clock() + ROW_TTL_S
        row = await self._read(user_id, account_id)
        account = None if row is None else KnownAccount(row)
        current = self._readings.get(account_id, {}).get(user_id) is asyncio.current_task()
        if account is not None and current:
            self._rows[account_id] = account, until
            self._rows.move_to_end(account_id)
            if len(self._rows) > MOST_ROWS:
                self._rows.popitem(last=False)
        return account

    def _done(
        self, user_id: UUID, account_id: str, reading: asyncio.Task[KnownAccount | None]
    ) -> None:
        readings = self._readings.get(account_id, {})
        if readings.get(user_id) is reading:
            del readings[user_id]
        if not readings:
            self._readings.pop(account_id, None)


class AccountDirectory:
    """Finds, saves and annotates accounts.

    Args:
        store: The rows.
        vault: Seals and opens passwords.
    """

    def __init__(self, store: AccountStore, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._cache = AccountCache(store.get)

    def kept(self, user_id: UUID, account_id: str) -> KnownAccount | None:
        """The user's account, if it is in memory and at most `ROW_TTL_S` old."""
        return self._cache.kept(user_id, account_id)

    async def find(self, user_id: UUID, account_id: str) -> KnownAccount:
        """The user's account as it stood at most `ROW_TTL_S` ago: for reads.

        Raises:
            AccountNotFound: There is none, or it is another user's.
            DatabaseUnavailable: It is not in memory, and the database is away.
        """
        account = await self._cache.get(user_id, account_id)
        if account is None:
            raise _not_found(account_id)
        return account

    async def find_now(self, user_id: UUID, account_id: str) -> KnownAccount:
        """The user's account as it stands in the database; raises as `find` does."""
        row = await self._store.get(user_id, account_id)
        if row is None:
            self._cache.invalidate(account_id)
            raise _not_found(account_id)
        return KnownAccount(row)

    def invalidate(self, account_id: str) -> None:
        """Somebody changed the account: the next `find` asks the database."""
        self._cache.invalidate(account_id)

    def invalidate_all(self) -> None:
        """Nobody knows who changed what: the next `find` of each account asks the database."""
        self._cache.invalidate_all()

    async def of_user(self, user_id: UUID) -> list[KnownAccount]:
        """All accounts of the user, by id."""
        return [KnownAccount(row) for row in await self._store.list(user_id)]

    async def save(self, user_id: UUID, account_id: str, proven: Credentials) -> None:
        """Keep credentials that the broker has accepted; the account is connected.

        Raises:
            AccountNotFound: The id is another user's.
            Conflict: The login is held under another id.
        """

        def seal(binding: AccountBinding) -> Sealed:
            return self._vault.seal(proven.password, binding)

        try:
            await self._store.save_login(user_id, account_id, proven.identity, seal)
        finally:
            self._cache.invalidate(account_id)

    @asynccontextmanager
    async def connecting(self, user_id: UUID, account_id: str) -> AsyncIterator[None]:
        """The account, if there is one, is `connecting`, and afterwards again what it was.

        Unless `save` has made it connected, or somebody has disconnected it meanwhile.
        """
        before = await self._store.connecting(user_id, account_id)
        self._cache.invalidate(account_id)
        try:
            yield
        except BaseException:
            if before is not None:
                await self._put_back(before)
            raise

    async def delete(self, account: KnownAccount, audit: AuditEntry) -> None:
        """Erase the account and its credentials, and append the audit row with it.

        Raises:
            AccountNotFound: It is gone already.
        """
        try:
            await self._store.delete(account.row.user_id, account.account_id, audit)
        finally:
            self._cache.invalidate(account.account_id)

    async def _put_back(self, before: AccountRow) -> None:
        """Why the connect failed matters more than that this failed too; housekeeping mends it."""
        try:
            await self._store.connect_failed(before)
        except DatabaseUnavailable as unwritten:
            log.warning("state_not_put_back", error=unwritten.message)
        finally:
            self._cache.invalidate(before.account_id)

    async def disconnected(self, account: KnownAccount) -> None:
        """Record that the owner ended the session."""
        try:
            await self._store.set_state(
                account.row.user_id, account.account_id, AccountState.DISCONNECTED
            )
        finally:
            # Whether it was written may be unknown when the database goes away.
            self._cache.invalidate(account.account_id)

    async def note(
        self, account: KnownAccount, state: AccountState, why: Mt5SwarmError | None = None
    ) -> None:
        """Record a change of state, unless somebody else has changed it since `account` was read.

        A database that is away costs the record, not the answer.
        """
        if state is account.row.standing:
            return
        error = None if why is None else AccountError(why.code, why.message)
        try:
            await self._store.move_state(account.row, state, error)
        except DatabaseUnavailable as unwritten:
            log.warning("state_not_recorded", state=state, error=unwritten.message)
        finally:
            self._cache.invalidate(account.account_id)


def _not_found(account_id: str) -> AccountNotFound:
    return AccountNotFound(f"no account {account_id!r}")

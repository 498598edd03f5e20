"""Accounts as the use cases see them: rows of Postgres, and the vault that opens passwords."""

from dataclasses import dataclass
from uuid import UUID

import structlog

from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.instants import iso_utc
from mt5kit.errors import AccountNotFound, Conflict, LoginRefused, Mt5SwarmError
from mt5kit.state.postgres import AccountError, AccountRow, AccountStore, DatabaseUnavailable
from mt5kit.terminal.credentials import Credentials
from mt5kit.vault import AccountBinding, Sealed, Vault

log = structlog.get_logger(__name__)


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
        if self.state is AccountState.DISCONNECTED:
            raise Conflict(
                "the account is disconnected; connect it again", details={"state": self.state}
            )
        if self.state is AccountState.LOGIN_FAILED:
            raise LoginRefused(
                "the broker refused this account's credentials; connect it with new ones",
                details={"state": self.state, "since": iso_utc(self.row.state_since_ms)},
            )


class AccountDirectory:
    """Finds, saves and annotates accounts.

    Args:
        store: The rows.
        vault: Seals and opens passwords.
    """

    def __init__(self, store: AccountStore, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    async def find(self, user_id: UUID, account_id: str) -> KnownAccount:
        """The user's account.

        Raises:
            AccountNotFound: There is none, or it is another user's.
        """
        row = await self._store.get(user_id, account_id)
        if row is None:
            raise AccountNotFound(f"no account {account_id!r}")
        return KnownAccount(row)

    async def of_user(self, user_id: UUID) -> list[KnownAccount]:
        """All accounts of the user, by id."""
        return [KnownAccount(row) for row in await self._store.list(user_id)]

    async def credentials(self, account: KnownAccount) -> Credentials:
        """The account's credentials, opened; hold them no longer than a login takes.

        Raises:
            AccountNotFound: It has been deleted meanwhile.
            VaultFault: The key is missing or the row was tampered with.
        """
        stored = await self._store.sealed_password(account.row.user_id, account.account_id)
        return Credentials(stored.identity, self._vault.open(stored.sealed, stored.binding))

    async def save(self, user_id: UUID, account_id: str, proven: Credentials) -> None:
        """Keep credentials that the broker has accepted; the account is connected.

        Raises:
            AccountNotFound: The id is another user's.
            Conflict: The login is held under another id.
        """

        def seal(binding: AccountBinding) -> Sealed:
            return self._vault.seal(proven.password, binding)

        await self._store.save_login(user_id, account_id, proven.identity, seal)

    async def disconnected(self, account: KnownAccount) -> None:
        """Record that the owner ended the session."""
        await self._store.set_state(
            account.row.user_id, account.account_id, AccountState.DISCONNECTED
        )

    async def note(
        self, account: KnownAccount, state: AccountState, why: Mt5SwarmError | None = None
    ) -> None:
        """Record a change of state, unless somebody else has changed it since `account` was read.

        A database that is away costs the record, not the answer.
        """
        if state is account.state:
            return
        error = None if why is None else AccountError(why.code, why.message)
        try:
            await self._store.move_state(account.row, state, error)
        except DatabaseUnavailable as unwritten:
            log.warning("state_not_recorded", state=state, error=unwritten.message)

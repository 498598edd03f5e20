"""What it takes to log a streamed account in."""

from typing import Protocol

from mt5kit.domain.accounts import AccountState
from mt5kit.errors import LoginRefused
from mt5kit.state.postgres import AccountError, WorkerStore
from mt5kit.terminal.credentials import Credentials
from mt5kit.vault import Vault


class CredentialSource(Protocol):
    """Credentials by account."""

    async def credentials(self, account_id: str) -> Credentials:
        """The credentials that are stored now.

        Raises:
            AccountNotFound: There is no such account.
            Unavailable: They cannot be read now.
        """

    async def refused(self, account_id: str, refusal: LoginRefused) -> None:
        """Record that the broker refused them.

        Raises:
            AccountNotFound: There is no such account, or no longer.
            Unavailable: It cannot be recorded now.
        """


class StoredCredentials:
    """Credentials from Postgres, opened by the vault. A `CredentialSource`."""

    def __init__(self, store: WorkerStore, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    async def credentials(self, account_id: str) -> Credentials:
        """See `CredentialSource.credentials`."""
        stored = await self._store.credentials(account_id)
        return Credentials(stored.identity, self._vault.open(stored.sealed, stored.binding))

    async def refused(self, account_id: str, refusal: LoginRefused) -> None:
        """See `CredentialSource.refused`."""
        error = AccountError(refusal.code, refusal.message)
        await self._store.set_state(account_id, AccountState.LOGIN_FAILED, error)

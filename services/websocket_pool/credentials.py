"""What it takes to log a streamed account in, and whether it may be."""

from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import structlog

from mt5kit.domain.accounts import AccountState
from mt5kit.errors import LoginRefused, VaultFault
from mt5kit.state.postgres import AccountError, Standing, WorkerStore
from mt5kit.terminal.credentials import Credentials
from mt5kit.vault import Vault

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account as it is stored at one moment.

    Args:
        account_id: The caller's identifier.
        credentials: Of its last good connect.
        state: Where it stands.
        seal: The sealed password: other bytes for every connect, also with the same password,
            and the same ones whatever key it is wrapped under.
        user_id: Whose account it is.
    """

    account_id: str
    credentials: Credentials
    state: AccountState
    seal: bytes = field(repr=False)
    user_id: UUID | None = None

    @property
    def refused(self) -> bool:
        """Whether the broker has refused these credentials."""
        return self.state is AccountState.LOGIN_FAILED


class CredentialSource(Protocol):
    """Accounts by id."""

    async def standing(self, account_id: str) -> Standing:
        """Whose it is and where it stands, without its password.

        Raises:
            AccountNotFound: There is no such account.
            Unavailable: It cannot be read now.
        """

    async def read(self, account_id: str) -> StoredAccount:
        """What is stored now.

        Raises:
            AccountNotFound: There is no such account.
            Unavailable: It cannot be read now.
        """

    async def refused(self, account: StoredAccount, refusal: LoginRefused) -> None:
        """Record that the broker refused these credentials, unless others have come since.

        Raises:
            AccountNotFound: There is no such account, or no longer.
            Unavailable: It cannot be recorded now.
        """


class StoredCredentials:
    """Credentials from Postgres, opened by the vault. A `CredentialSource`."""

    def __init__(self, store: WorkerStore, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    async def standing(self, account_id: str) -> Standing:
        """See `CredentialSource.standing`."""
        return await self._store.standing(account_id)

    async def read(self, account_id: str) -> StoredAccount:
        """See `CredentialSource.read`."""
        stored = await self._store.credentials(account_id)
        login = stored.login
        try:
            password = self._vault.open(login.sealed, login.binding)
        except VaultFault as closed:
            log.error(  # noqa: TRY400 - the traceback tells nothing more
                "password_not_opened",
                account_id=account_id,
                key_id=login.sealed.key_id,
                error=closed.message,
            )
            raise
        credentials = Credentials(login.identity, password, login.seal)
        return StoredAccount(
            account_id, credentials, stored.state, login.sealed.ciphertext, stored.user_id
        )

    async def refused(self, account: StoredAccount, refusal: LoginRefused) -> None:
        """See `CredentialSource.refused`."""
        await self._store.set_state(
            account.account_id,
            AccountState.LOGIN_FAILED,
            AccountError(refusal.code, refusal.message),
            ciphertext=account.seal,
        )

"""Stored accounts as the owner of a terminal needs them: to log them in, to tell how it went."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Collection, Coroutine
from typing import Any, Final

import structlog

from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.errors import AccountNotFound, Conflict, LoginRefused, VaultFault, WrongAccount
from mt5kit.service.background import Background
from mt5kit.state.postgres import AccountError, DatabaseUnavailable, WorkerLogin, WorkerStore
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.scheduling import Entrant
from mt5kit.vault import Vault

log = structlog.get_logger(__name__)

# A refusal that is not recorded would be tried again by whoever holds the terminal next.
RECORD_AGAIN_S: Final = 2.0
RECORD_TRIES: Final = 150
# A hand-over waits no longer: a database that is away would keep the terminal from everybody.
RECORDED_S: Final = 2.0

# Far more accounts than are logged in while one refusal is written.
MOST_TRIED: Final = 10_000

_ENDED: Final = frozenset({AccountState.DISCONNECTED, AccountState.LOGIN_FAILED})


class SessionAccounts:
    """Accounts by name, whoever they belong to: the request has checked that.

    Args:
        store: The rows, as `mt5_worker`.
        vault: Opens the passwords.
        background: Runs what nobody waits for.
    """

    def __init__(self, store: WorkerStore, vault: Vault, background: Background) -> None:
        self._store = store
        self._vault = vault
        self._background = background
        self._states: dict[str, AccountState] = {}
        # Outlives a session that is dropped during its login: what is refused must be known.
        self._tried: OrderedDict[str, bytes] = OrderedDict()
        self._rows: dict[str, int] = {}
        self._unwritten: set[asyncio.Future[None]] = set()

    def entrant(self, account_id: str, identity: AccountIdentity) -> Entrant:
        """The account, for a turn that a request waits for."""

        async def credentials() -> Credentials:
            stored = await self._store.credentials(account_id)
            if stored.state is AccountState.LOGIN_FAILED:
                raise LoginRefused(
                    "the broker refused this account's credentials; connect it with new ones",
                    details={"state": stored.state},
                )
            if stored.state is AccountState.DISCONNECTED:
                raise Conflict(
                    "the account is disconnected; connect it again", details={"state": stored.state}
                )
            return self._opened(account_id, stored, identity)

        return Entrant(account_id, identity, credentials)

    async def to_refresh(self, account_id: str) -> Entrant | None:
        """The account if it may be refreshed now, None otherwise.

        Raises:
            DatabaseUnavailable: Nobody knows.
        """
        try:
            stored = await self._store.credentials(account_id)
        except AccountNotFound:
            return None
        if stored.state in _ENDED:
            return None
        identity = stored.login.identity
        # What others have recorded meanwhile, so that a look which differs is news.
        self._states[account_id] = stored.state

        async def credentials() -> Credentials:
            return self._opened(account_id, stored, identity)

        return Entrant(account_id, identity, credentials)

    def looked(self, account_id: str, *, connected: bool) -> None:
        """Record that the account answers, if that is news."""
        state = AccountState.CONNECTED if connected else AccountState.BROKER_DISCONNECTED
        if self._states.get(account_id, state) is not state:
            self._record(account_id, state, None)
        self._states[account_id] = state

    def refused(self, account_id: str, error: LoginRefused) -> None:
        """Record that the broker refused the stored credentials; nobody shall try them again."""
        self._states[account_id] = AccountState.LOGIN_FAILED
        self._record(account_id, AccountState.LOGIN_FAILED, AccountError(error.code, error.message))

    async def recorded(self) -> None:
        """Wait until what was to be recorded is, for `RECORDED_S` at most.

        Before a terminal is given away: its next owner would try a refused password again.
        """
        if self._unwritten:
            await asyncio.wait(set(self._unwritten), timeout=RECORDED_S)

    def rows(self) -> tuple[int, ...]:
        """The row ids of the accounts that were logged in here and are still served here."""
        return tuple(sorted(self._rows.values()))

    def keep(self, accounts: Collection[str]) -> None:
        """Forget every account that is not among those served here now."""
        known = self._rows.keys() | self._states.keys()
        for account_id in known.difference(accounts):
            self.forget(account_id)

    def forget(self, account_id: str) -> None:
        """The account is not served here any more."""
        self._rows.pop(account_id, None)
        self._states.pop(account_id, None)

    def _opened(
        self, account_id: str, stored: WorkerLogin, identity: AccountIdentity
    ) -> Credentials:
        if stored.login.identity != identity:
            raise WrongAccount("other credentials have been connected meanwhile", retry_after_s=1)
        self._states[account_id] = stored.state
        self._tried[account_id] = stored.login.sealed.ciphertext
        self._tried.move_to_end(account_id)
        if len(self._tried) > MOST_TRIED:
            self._tried.popitem(last=False)
        self._rows[account_id] = stored.login.id
        try:
            password = self._vault.open(stored.login.sealed, stored.login.binding)
        except VaultFault as closed:
            # For the operator: the caller learns only that it is our fault.
            log.error("password_not_opened", account_id=account_id, error=closed.message)  # noqa: TRY400 - the traceback of a vault would tell too much
            raise
        return Credentials(identity, password, stored.login.seal)

    def _record(self, account_id: str, state: AccountState, error: AccountError | None) -> None:
        # Of this moment: by the time it is written, other credentials may have come.
        ciphertext = self._tried.get(account_id)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unwritten.add(written)
        written.add_done_callback(self._unwritten.discard)
        work = self._until_recorded(account_id, state, error, ciphertext)
        self._background.spawn(f"state-{account_id}", _then(work, written))

    async def _until_recorded(
        self,
        account_id: str,
        state: AccountState,
        error: AccountError | None,
        ciphertext: bytes | None,
    ) -> None:
        for _ in range(RECORD_TRIES):
            try:
                await self._write(account_id, state, error, ciphertext)
            except DatabaseUnavailable:
                await asyncio.sleep(RECORD_AGAIN_S)
            except AccountNotFound:
                return
            else:
                return
        log.error("state_not_recorded", account_id=account_id, state=state)

    def _write(
        self,
        account_id: str,
        state: AccountState,
        error: AccountError | None,
        ciphertext: bytes | None,
    ) -> Awaitable[bool]:
        logged_in = state is AccountState.CONNECTED
        return self._store.set_state(
            account_id, state, error, ciphertext=ciphertext, logged_in=logged_in
        )


async def _then(work: Coroutine[Any, Any, None], written: "asyncio.Future[None]") -> None:
    try:
        await work
    finally:
        written.set_result(None)

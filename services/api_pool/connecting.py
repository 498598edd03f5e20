"""Connecting an account: prove the credentials, keep them sealed, place the session."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

import structlog

from api_pool.answers import ConnectAnswer
from api_pool.directory import AccountDirectory, KnownAccount
from api_pool.looks import Looks
from api_pool.memory import Kept
from api_pool.places import Places
from api_pool.reading import turn_meta
from api_pool.routing import Patience, TurnRouter
from api_pool.seen import Seen
from api_pool.turns import ProofTurn, Taken
from mt5kit.domain.brokers import Brokers
from mt5kit.errors import AccountNotFound, RateLimited, TerminalHandedOver, TerminalMoved
from mt5kit.service.background import Background
from mt5kit.state.postgres import AuditEntry, DatabaseUnavailable, WorkerStore
from mt5kit.state.redis import (
    Control,
    ControlChannel,
    HistoryCache,
    LoginBudgetStore,
    StateUnavailable,
    SyncStore,
)
from mt5kit.terminal.credentials import Credentials
from mt5kit.vault import AccountBinding, Vault

log = structlog.get_logger(__name__)

# Until the emptiest terminal is sought anew, when the one of before has changed hands.
PROOF_PAUSE_S: Final = 0.3
# A state store that is away for longer has lost what there was to erase, or an operator looks.
ERASE_AGAIN_S: Final = 2.0
ERASE_TRIES: Final = 300


class Connector:
    """Connects, disconnects and deletes accounts.

    Args:
        directory: The accounts.
        router: Finds who tries credentials.
        places: Which terminal serves an account.
        looks: What has been seen.
        pages: Pages of history.
        syncs: Jobs that a deletion ends.
        control: Tells the other replicas and whoever streams the account.
        brokers: The servers we know.
        vault: Seals credentials for their way to a terminal.
        background: Erases what is left of a deletion.
        worker: Knows whose an account is.
        budget: Counts connects.
        connects_per_minute: Of a user, at most.
        turn_deadline_s: How long a connect may wait for its turn.
    """

    def __init__(  # noqa: PLR0913 - a composition root's list of parts
        self,
        *,
        directory: AccountDirectory,
        router: TurnRouter,
        places: Places,
        looks: Looks,
        pages: HistoryCache,
        syncs: SyncStore,
        control: ControlChannel,
        brokers: Brokers,
        vault: Vault,
        background: Background,
        worker: WorkerStore,
        budget: LoginBudgetStore,
        connects_per_minute: float,
        turn_deadline_s: float,
    ) -> None:
        self._directory = directory
        self._router = router
        self._places = places
        self._looks = looks
        self._pages = pages
        self._syncs = syncs
        self._control = control
        self._brokers = brokers
        self._vault = vault
        self._background = background
        self._worker = worker
        self._budget = budget
        self._connects_per_minute = connects_per_minute
        self._deadline_s = turn_deadline_s
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def connect(
        self, user_id: UUID, account_id: str, credentials: Credentials
    ) -> ConnectAnswer:
        """Log the account in, then keep its credentials; what fails leaves nothing behind.

        Raises:
            BrokerUnknown: The server is not on the list.
            RateLimited: The user connects too often.
            LoginRefused: The broker refused the credentials.
            BrokerTimeout: The broker did not answer in time.
            Conflict: The login is held under another id.
            AccountNotFound: The id is another user's.
            ServiceOverloaded: No terminal has room.
            TerminalUnavailable: The terminal cannot log in now.
        """
        self._brokers.check(credentials.identity.server)
        await self._admit(user_id, account_id)
        async with self._one_at_a_time(account_id):
            async with self._directory.connecting(user_id, account_id):
                had = await self._places.had(account_id)
                taken, seen = await self._kept(user_id, account_id, had, credentials)
            await self._settle(account_id, had, taken)
            kept = Kept(seen, taken.terminal_id, taken.instance_id, "cache", taken.as_of_ms)
            await self._announce(account_id)
            self._looks.heard(account_id, kept)
            await self._looks.share(account_id, taken.token, kept)
        return ConnectAnswer(
            account_id=account_id,
            instance_id=taken.instance_id,
            terminal_id=taken.terminal_id,
            account=seen.snapshot().account,
            meta=turn_meta(account_id, taken),
        )

    async def disconnect(self, account: KnownAccount) -> None:
        """End the session and the streams; the sealed credentials stay. Repeating it is harmless.

        Raises:
            StateUnavailable: The state store is away, so streams could not be told.
        """
        async with self._one_at_a_time(account.account_id):
            await self._directory.disconnected(account)
            await self._end(account.account_id, Control.DISCONNECT)

    async def delete(self, account: KnownAccount, actor: str, request_id: str) -> None:
        """Erase the account's credentials and state, and end its session and streams.

        Args:
            account: What is deleted.
            actor: The name of the service key that asked.
            request_id: Of the request.

        Raises:
            AccountNotFound: It was deleted meanwhile.
        """
        entry = AuditEntry(
            actor=actor,
            action="account.delete",
            target=account.account_id,
            detail={
                "user_id": str(account.row.user_id),
                "login": account.identity.login,
                "server": account.identity.server,
            },
            request_id=request_id,
        )
        async with self._one_at_a_time(account.account_id):
            await self._directory.delete(account, entry)
            try:
                await self._erase(account.account_id)
            except StateUnavailable as away:
                # The account is gone; its session and streams end when they can be told.
                log.warning("erased_later", account_id=account.account_id, error=away.message)
                self._background.spawn(f"erase-{account.account_id}", self._until_erased(account))

    async def _admit(self, user_id: UUID, account_id: str) -> None:
        """Refuse who connects too often, and who names another user's account.

        Before anything is done: a stranger must neither take nor lose its place, nor spend a
        login on it.
        """
        wait_s = await self._budget.take_connect(str(user_id), self._connects_per_minute)
        if wait_s:
            raise RateLimited(
                "this user connects accounts too often", retry_after_s=round(wait_s, 3)
            )
        if await self._worker.owner(account_id) not in {None, user_id}:
            raise AccountNotFound(f"no account {account_id!r}")

    async def _kept(
        self, user_id: UUID, account_id: str, had: str | None, credentials: Credentials
    ) -> tuple[Taken, Seen]:
        """Prove the credentials and keep them."""

        async def where() -> str:
            # Even a known account proves new credentials where fewest others wait for it.
            return await (self._places.emptiest() if had else self._places.place(account_id))

        terminal_id = await where()
        try:
            taken = await self._proven(terminal_id, where, credentials)
            seen = Seen.of_payload(bytes(taken.payload))
            # The account is who the terminal says it is, not what was typed.
            proven = Credentials(seen.identity, credentials.password)
            await self._directory.save(user_id, account_id, proven)
        except BaseException:
            if had is None:
                await self._places.give_up(account_id)
            raise
        return taken, seen

    async def _proven(
        self, terminal_id: str, where: Callable[[], Awaitable[str]], credentials: Credentials
    ) -> Taken:
        """Try the credentials on a terminal; when that moves, where it is best by then."""
        identity = credentials.identity
        binding = AccountBinding(uuid4(), identity.login, identity.server)
        turn = ProofTurn(binding, self._vault.seal(credentials.password, binding))
        patience = Patience(self._deadline_s)
        while True:
            patience.asks(terminal_id)
            try:
                return await self._router.on_terminal(terminal_id, turn, patience.left_s)
            except TerminalMoved as moved:
                # Nothing was tried yet.
                if patience.over(handed_over=isinstance(moved, TerminalHandedOver)):
                    raise
            await asyncio.sleep(PROOF_PAUSE_S)
            terminal_id = await where()

    async def _settle(self, account_id: str, had: str | None, taken: Taken) -> None:
        """Serve the account where it is logged in now, rather than switch once more for it."""
        if had is None or had == taken.terminal_id:
            return
        try:
            await self._places.move(account_id, had, taken.terminal_id)
        except StateUnavailable as away:
            log.warning("account_not_moved", error=away.message)

    async def _announce(self, account_id: str) -> None:
        """Drop what was seen under older credentials, and tell whoever streams the account.

        The credentials are stored by now, so a state store that is away fails nobody: every look
        is checked against the stored identity, and a stream reads it again when it signs in.
        """
        try:
            await self._looks.forget(account_id)
            await self._pages.drop(account_id)
            await self._control.publish(account_id, Control.CREDENTIALS)
        except StateUnavailable as away:
            log.warning("credentials_not_announced", error=away.message)

    async def _erase(self, account_id: str) -> None:
        await self._end(account_id, Control.DELETED)
        await self._syncs.cancel_account(account_id)

    async def _until_erased(self, account: KnownAccount) -> None:
        account_id = account.account_id
        for _ in range(ERASE_TRIES):
            await asyncio.sleep(ERASE_AGAIN_S)
            async with self._one_at_a_time(account_id):
                try:
                    await self._directory.find_now(account.row.user_id, account_id)
                except AccountNotFound:
                    with suppress(StateUnavailable):
                        await self._erase(account_id)
                        return
                except DatabaseUnavailable:
                    continue
                else:
                    # Connected anew meanwhile.
                    return
        log.error("account_not_erased", account_id=account_id)

    async def _end(self, account_id: str, why: Control) -> None:
        self._looks.drop(account_id)
        await self._places.remove(account_id)
        await self._looks.forget(account_id)
        await self._pages.drop(account_id)
        await self._control.publish(account_id, why)

    @asynccontextmanager
    async def _one_at_a_time(self, account_id: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(account_id, asyncio.Lock())
        async with lock:
            yield

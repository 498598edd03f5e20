"""Connecting an account: prove the credentials, keep them sealed, place the session."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from api_pool.answers import ConnectAnswer
from api_pool.directory import AccountDirectory, KnownAccount
from api_pool.fleet import Fleet
from api_pool.looks import Looks
from api_pool.reading import Reader
from mt5kit.domain.brokers import Brokers
from mt5kit.state.redis import Control, ControlChannel, StateUnavailable
from mt5kit.terminal.credentials import Credentials

log = structlog.get_logger(__name__)

# The broker's 15 s, and what it takes to tell of it.
LOGIN_OVERHEAD_S: Final = 2.0


class Connector:
    """Connects and disconnects accounts.

    Args:
        reader: Keeps the look that a login gives.
        fleet: The terminals.
        directory: The accounts.
        looks: Placements and cached looks.
        control: Tells whoever streams the account.
        brokers: The servers we know.
        login_timeout_s: What an unproven login may take.
    """

    def __init__(  # noqa: PLR0913 - a composition root's list of parts
        self,
        *,
        reader: Reader,
        fleet: Fleet,
        directory: AccountDirectory,
        looks: Looks,
        control: ControlChannel,
        brokers: Brokers,
        login_timeout_s: float,
    ) -> None:
        self._reader = reader
        self._fleet = fleet
        self._directory = directory
        self._looks = looks
        self._control = control
        self._brokers = brokers
        self._login_timeout_s = login_timeout_s
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def connect(
        self, user_id: UUID, account_id: str, credentials: Credentials
    ) -> ConnectAnswer:
        """Log the account in, then keep its credentials; what fails leaves nothing behind.

        Raises:
            BrokerUnknown: The server is not on the list.
            LoginRefused: The broker refused the credentials.
            BrokerTimeout: The broker did not answer in time.
            Conflict: The login is held under another id.
            AccountNotFound: The id is another user's.
            TerminalUnavailable: The terminal cannot log in now.
        """
        self._brokers.check(credentials.identity.server)
        async with self._one_at_a_time(account_id), self._placed(account_id) as terminal_id:
            session = self._fleet.session(terminal_id)
            turn = await session.prove(
                credentials, deadline_s=self._login_timeout_s + LOGIN_OVERHEAD_S
            )
            # The account is who the terminal says it is, not what was typed.
            proven = Credentials(turn.value.identity, credentials.password)
            await self._directory.save(user_id, account_id, proven)
            await self._announce(account_id)
            seen = await self._reader.keep(account_id, terminal_id, turn.token, turn.value)
        return ConnectAnswer(
            account_id=account_id,
            instance_id=self._reader.instance_id,
            terminal_id=terminal_id,
            account=seen.account,
            meta=self._reader.turn_meta(account_id, terminal_id, seen.seen_ms, turn),
        )

    async def _announce(self, account_id: str) -> None:
        """Drop what was seen under older credentials, and tell whoever streams the account.

        The credentials are stored by now, so a state store that is away fails nobody: every look
        is checked against the stored identity, and a stream reads it again when it signs in.
        """
        try:
            await self._looks.cache.drop(account_id)
            await self._control.publish(account_id, Control.CREDENTIALS)
        except StateUnavailable as away:
            log.warning("credentials_not_announced", error=away.message)

    async def disconnect(self, account: KnownAccount) -> None:
        """End the session and the streams; the sealed credentials stay. Repeating it is harmless.

        Raises:
            StateUnavailable: The state store is away, so streams could not be told.
        """
        async with self._one_at_a_time(account.account_id):
            await self._directory.disconnected(account)
            await self._looks.forget(account.account_id)
            await self._control.publish(account.account_id, Control.DISCONNECT)

    @asynccontextmanager
    async def _one_at_a_time(self, account_id: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(account_id, asyncio.Lock())
        async with lock:
            yield

    @asynccontextmanager
    async def _placed(self, account_id: str) -> AsyncIterator[str]:
        """A terminal for the account; a place made for a failed connect is given up again."""
        had = await self._looks.placements.where(account_id)
        terminal_id = await self._looks.place(account_id, self._fleet.terminal_ids)
        try:
            yield terminal_id
        except BaseException:
            if had is None:
                await self._give_up_place(account_id)
            raise

    async def _give_up_place(self, account_id: str) -> None:
        """Forget the place; why the connect failed matters more than that this failed too."""
        try:
            await self._looks.forget(account_id)
        except StateUnavailable as away:
            log.warning("place_not_given_up", error=away.message)

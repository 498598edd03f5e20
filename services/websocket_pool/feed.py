"""The one poll of an account: sign in, wait for changes, and begin again after trouble."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn

import structlog

from mt5kit.backoff import Backoff
from mt5kit.domain.accounts import AccountState
from mt5kit.domain.brokers import Brokers
from mt5kit.errors import (
    BrokerTimeout,
    LoginRefused,
    PollSuperseded,
    StaleToken,
    Unavailable,
    WrongAccount,
)
from mt5kit.state.postgres import Standing
from mt5kit.terminal.protocol import StreamTerminal
from websocket_pool.close_codes import CloseCode
from websocket_pool.credentials import CredentialSource, StoredAccount
from websocket_pool.diff import Status
from websocket_pool.source import StreamOver
from websocket_pool.stream import Stream

POLL_S: Final = 0.5
"""An unchanged account answers this often, so that REST may call it fresh each second."""

MISLED_S: Final = 900.0
"""A terminal that logs in as somebody else does so again; this makes four logins an hour."""

log = structlog.get_logger(__name__)


class _Misled(Exception):
    """The terminal has logged in and says it is another account."""


def check_connected(account: StoredAccount | Standing) -> None:
    """Refuse to stream an account that its owner has disconnected.

    Raises:
        StreamOver: It is.
    """
    if account.state is AccountState.DISCONNECTED:
        raise StreamOver(CloseCode.ENDED, "the account is disconnected")


@dataclass(frozen=True, slots=True)
class FeedParts:
    """What every feed of a replica shares.

    Args:
        credentials: Of the accounts.
        brokers: Whose clocks the times are in.
        refused: The seals of credentials that a broker has refused, by account: never tried twice.
        backoff: Makes the delays of one feed.
    """

    credentials: CredentialSource
    brokers: Brokers
    refused: dict[str, bytes] = field(default_factory=dict)
    backoff: Callable[[], Backoff] = Backoff


class Feed:
    """Feeds one stream from one terminal.

    Args:
        account: Whose, as it is stored now.
        stream: Where the looks go.
        terminal: Where they come from.
        token: The fencing token of our lease at this moment; raises TerminalUnavailable without.
        parts: What feeds share.

    Attributes:
        alike: Whether another terminal would do no better: its broker is silent, or logs in as
            another account.
    """

    def __init__(
        self,
        account: StoredAccount,
        stream: Stream,
        terminal: StreamTerminal,
        token: Callable[[], int],
        parts: FeedParts,
    ) -> None:
        self._account = account
        self._stream = stream
        self._terminal = terminal
        self._token = token
        self._parts = parts
        self._backoff = parts.backoff()
        self._told = asyncio.Event()
        self._renewed = asyncio.Event()
        self.alike = False
        self._log = log.bind(account_id=account.account_id, terminal_id=terminal.terminal_id)

    def reread(self) -> None:
        """Have `heed` read the account again."""
        self._told.set()

    async def heed(self) -> NoReturn:
        """Until cancelled, read the account whenever told to, and go on with what has changed.

        Raises:
            StreamOver: It is disconnected, or has another identity than the line.
            AccountNotFound: It has been deleted.
        """
        while True:
            await self._told.wait()
            self._told.clear()
            account = await self._read()
            check_connected(account)
            if self._stream.identity not in {None, account.credentials.identity}:
                raise StreamOver(CloseCode.RESTART, "the account has another login now")
            if account.user_id != self._account.user_id:
                raise StreamOver(CloseCode.ENDED, "the account is gone")
            before, self._account = self._account, account
            if (account.seal, account.refused) != (before.seal, before.refused):
                self._renewed.set()

    async def _read(self) -> StoredAccount:
        """What is stored now; a store that is away does not disturb the stream."""
        backoff = self._parts.backoff()
        while True:
            try:
                return await self._parts.credentials.read(self._account.account_id)
            except Unavailable as away:
                self._log.warning("account_not_reread", error=away.message)
                await asyncio.sleep(backoff.next_s())

    async def run(self) -> NoReturn:
        """Feed until cancelled.

        Raises:
            StaleToken: Another replica owns the terminal.
            StreamOver: The terminal shows another account than the line's.
            AccountNotFound: The account has been deleted.
        """
        while True:
            # What `heed` has found stands in `_account` already: nothing is forgotten here.
            self._renewed.clear()
            attempt = asyncio.create_task(self._until_trouble())
            renewal = asyncio.create_task(self._renewed.wait())
            try:
                await asyncio.wait({attempt, renewal}, return_when=asyncio.FIRST_COMPLETED)
                if attempt.done():
                    attempt.result()
            finally:
                attempt.cancel()
                renewal.cancel()
                await asyncio.gather(attempt, renewal, return_exceptions=True)

    async def _until_trouble(self) -> None:
        """One life of the poll; returns when it is time for the next."""
        account = self._account
        try:
            await self._sign_in(account)
            await self._poll(account)
        except StaleToken:
            raise
        except LoginRefused as refusal:
            await self._give_up(account, refusal)
        except _Misled:
            self.alike = True
            self._log.error("stream_login_is_another_account")
            reason = "the terminal logs in as another account"
            self._stream.trouble(Status(AccountState.TERMINAL_UNAVAILABLE, reason))
            await asyncio.sleep(MISLED_S)
        except PollSuperseded:
            self._log.info("poll_superseded")
            await asyncio.sleep(self._backoff.next_s())
        except Unavailable as away:
            self.alike = isinstance(away, BrokerTimeout)
            self._log.warning("stream_interrupted", error=away.message)
            self._stream.trouble(Status(AccountState.TERMINAL_UNAVAILABLE, away.message))
            await asyncio.sleep(self._backoff.next_s())

    async def _sign_in(self, account: StoredAccount) -> None:
        if self._known_refused(account):
            raise LoginRefused("the broker has refused these credentials before")
        identity = account.credentials.identity
        signed = await self._terminal.sign_in(self._token(), account.credentials)
        snapshot = signed.snapshot
        if snapshot.identity != identity:
            raise _Misled
        self._stream.see(snapshot.in_utc(self._parts.brokers.clock_of(identity.server)))

    async def _poll(self, account: StoredAccount) -> NoReturn:
        identity = account.credentials.identity
        clock = self._parts.brokers.clock_of(identity.server)
        since = ""
        while True:
            look = await self._terminal.wait_changes(
                self._token(), identity, since, timeout_s=POLL_S, hold_s=self._stream.hold_s()
            )
            if look.snapshot.identity != identity:
                raise WrongAccount("the terminal answered for another account")
            since = look.version
            self._backoff.reset()
            self._stream.see(look.snapshot.in_utc(clock))

    async def _give_up(self, account: StoredAccount, refusal: LoginRefused) -> None:
        """Wait for other credentials: a password tried twice may lock the account."""
        self._log.warning("stream_login_refused", error=refusal.message)
        self._stream.trouble(Status(AccountState.LOGIN_FAILED, refusal.message))
        if not self._known_refused(account):
            self._parts.refused[account.account_id] = account.seal
            await self._record(account, refusal)
        await self._renewed.wait()

    async def _record(self, account: StoredAccount, refusal: LoginRefused) -> None:
        if self._account is account:
            # What we record ourselves is no news when it is read again.
            self._account = replace(account, state=AccountState.LOGIN_FAILED)
        try:
            await self._parts.credentials.refused(account, refusal)
        except Unavailable as away:
            self._log.warning("login_refusal_not_recorded", error=away.message)

    def _known_refused(self, account: StoredAccount) -> bool:
        return account.refused or self._parts.refused.get(account.account_id) == account.seal

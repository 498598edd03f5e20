"""The one poll of an account: sign in, wait for changes, and begin again after trouble."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NoReturn

import structlog

from mt5kit.domain.accounts import AccountState
from mt5kit.domain.brokers import Brokers
from mt5kit.errors import LoginRefused, PollSuperseded, StaleToken, Unavailable, WrongAccount
from mt5kit.terminal.backoff import Backoff
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.protocol import StreamTerminal
from websocket_pool.credentials import CredentialSource
from websocket_pool.diff import Status
from websocket_pool.stream import Stream

POLL_S: Final = 1.0
"""An unchanged account answers this often, which is how fresh REST may call it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FeedParts:
    """What every feed of a replica shares.

    Args:
        credentials: Of the accounts.
        brokers: Whose clocks the times are in.
        refused: The credentials that a broker has refused, by account: never tried twice.
        backoff: Makes the delays of one feed.
    """

    credentials: CredentialSource
    brokers: Brokers
    refused: dict[str, Credentials] = field(default_factory=dict)
    backoff: Callable[[], Backoff] = Backoff


class Feed:
    """Feeds one stream from one terminal.

    Args:
        account_id: Whose.
        stream: Where the looks go.
        terminal: Where they come from.
        token: The fencing token of our lease at this moment; raises TerminalUnavailable without.
        parts: What feeds share.
    """

    def __init__(
        self,
        account_id: str,
        stream: Stream,
        terminal: StreamTerminal,
        token: Callable[[], int],
        parts: FeedParts,
    ) -> None:
        self._account_id = account_id
        self._stream = stream
        self._terminal = terminal
        self._token = token
        self._parts = parts
        self._backoff = parts.backoff()
        self._credentials: Credentials | None = None
        self._renewed = asyncio.Event()
        self._log = log.bind(account_id=account_id, terminal_id=terminal.terminal_id)

    def credentials_changed(self) -> None:
        """Read the credentials again and sign in with them."""
        self._renewed.set()

    async def run(self) -> NoReturn:
        """Feed until cancelled.

        Raises:
            StaleToken: Another replica owns the terminal.
            AccountNotFound: The account has been deleted.
        """
        while True:
            self._renewed.clear()
            attempt = asyncio.create_task(self._until_trouble())
            renewal = asyncio.create_task(self._renewed.wait())
            try:
                await asyncio.wait({attempt, renewal}, return_when=asyncio.FIRST_COMPLETED)
                if attempt.done():
                    attempt.result()
                if renewal.done():
                    self._credentials = None
            finally:
                attempt.cancel()
                renewal.cancel()
                await asyncio.gather(attempt, renewal, return_exceptions=True)

    async def _until_trouble(self) -> None:
        """One life of the poll; returns when it is time for the next."""
        try:
            await self._poll(await self._signed_in())
        except StaleToken:
            raise
        except LoginRefused as refusal:
            await self._give_up(refusal)
        except PollSuperseded:
            self._log.info("poll_superseded")
            await asyncio.sleep(self._backoff.next_s())
        except Unavailable as away:
            self._log.warning("stream_interrupted", error=away.message)
            self._stream.trouble(Status(AccountState.TERMINAL_UNAVAILABLE, away.message))
            await asyncio.sleep(self._backoff.next_s())

    async def _signed_in(self) -> Credentials:
        if self._credentials is None:
            self._credentials = await self._parts.credentials.credentials(self._account_id)
        credentials = self._credentials
        if self._known_refused(credentials):
            raise LoginRefused("the broker has refused these credentials before")
        snapshot = await self._terminal.sign_in(self._token(), credentials)
        self._parts.refused.pop(self._account_id, None)
        clock = self._parts.brokers.clock_of(credentials.identity.server)
        self._stream.see(snapshot.in_utc(clock))
        return credentials

    async def _poll(self, credentials: Credentials) -> NoReturn:
        identity = credentials.identity
        clock = self._parts.brokers.clock_of(identity.server)
        since = ""
        while True:
            look = await self._terminal.wait_changes(
                self._token(), identity, since, timeout_s=POLL_S
            )
            if look.snapshot.identity != identity:
                raise WrongAccount("the terminal answered for another account")
            since = look.version
            self._backoff.reset()
            self._stream.see(look.snapshot.in_utc(clock))

    async def _give_up(self, refusal: LoginRefused) -> None:
        """Wait for other credentials: a password tried twice may lock the account."""
        self._log.warning("stream_login_refused", error=refusal.message)
        self._stream.trouble(Status(AccountState.LOGIN_FAILED, refusal.message))
        if self._credentials is not None and not self._known_refused(self._credentials):
            self._parts.refused[self._account_id] = self._credentials
            await self._record(refusal)
        await self._renewed.wait()

    async def _record(self, refusal: LoginRefused) -> None:
        try:
            await self._parts.credentials.refused(self._account_id, refusal)
        except Unavailable as away:
            self._log.warning("login_refusal_not_recorded", error=away.message)

    def _known_refused(self, credentials: Credentials) -> bool:
        return self._parts.refused.get(self._account_id) == credentials

"""Turns of one terminal that several accounts share: who is logged in, and who comes next."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

import structlog

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import ServiceOverloaded, WrongAccount
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.protocol import LOGIN_DEADLINE_S, AccountTerminal

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A turn is at most a login; who would wait for several of them does better to come back.
QUEUE_DEADLINE_S: Final = 10.0
# Turns of milliseconds clear this many within the deadline; turns of seconds do not clear ten.
MOST_WAITING: Final = 200
CredentialsOf: TypeAlias = Callable[[], Awaitable[Credentials]]
"""Fetches an account's credentials when a login needs them, and not before."""


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """What a turn gave, under which fencing token, and the milliseconds it waited and took."""

    value: T
    token: int
    queue_wait_ms: float
    broker_ms: float


class TerminalSession:
    """Gives turns one at a time, first come first served, logging in whoever's turn it is.

    The agent checks the identity inside every call, so a wrong memory here costs a login and
    never an answer.

    Args:
        terminal: The terminal.
        token: The fencing token of our lease, at this moment; raises TerminalUnavailable
            without a lease.
        metrics: Where switches are counted.
    """

    def __init__(
        self, terminal: AccountTerminal, token: Callable[[], int], metrics: TerminalMetrics
    ) -> None:
        self.terminal = terminal
        self._token = token
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._current: AccountIdentity | None = None

    async def prove(
        self, credentials: Credentials, *, deadline_s: float = LOGIN_DEADLINE_S
    ) -> Turn[Snapshot]:
        """Log in with these credentials, even if the account is in, and look.

        The snapshot says who is in: that is the account's identity, not what was typed.

        Raises:
            LoginRefused: The broker refused them.
            BrokerTimeout: The broker did not answer.
            ServiceOverloaded: Too many wait for this terminal, or waited too long.
            TerminalUnavailable: The terminal did not answer.
        """

        async def work(token: int) -> Snapshot:
            before, self._current = self._current, None
            snapshot = await self.terminal.sign_in(
                token, credentials, must_prove=True, deadline_s=deadline_s
            )
            self._now_in(before, snapshot.identity)
            return snapshot

        return await self._take_turn(work)

    async def look(self, identity: AccountIdentity, credentials: CredentialsOf) -> Turn[Snapshot]:
        """Look at an account, logging it in when another one is in; raises as `prove` does.

        Raises:
            WrongAccount: The terminal reports another identity than the one looked for.
        """

        async def work(token: int) -> Snapshot:
            if self._current == identity:
                try:
                    return await self.terminal.snapshot(token, identity)
                except WrongAccount:
                    self._account_gone()
            return await self._sign_in(token, identity, credentials)

        return await self._take_turn(work)

    async def read(
        self,
        identity: AccountIdentity,
        credentials: CredentialsOf,
        work: Callable[[int], Awaitable[T]],
    ) -> Turn[T]:
        """Run `work(token)` while the account is in; raises as `look` does, and as `work`."""

        async def with_login(token: int) -> T:
            if self._current == identity:
                try:
                    return await work(token)
                except WrongAccount:
                    self._account_gone()
            await self._sign_in(token, identity, credentials)
            return await work(token)

        return await self._take_turn(with_login)

    async def _sign_in(
        self, token: int, identity: AccountIdentity, credentials: CredentialsOf
    ) -> Snapshot:
        before, self._current = self._current, None
        snapshot = await self.terminal.sign_in(token, await credentials())
        if snapshot.identity != identity:
            # New credentials have come since, or the broker renamed its server.
            raise WrongAccount("the login gave another account than the one asked for")
        self._now_in(before, identity)
        return snapshot

    def _now_in(self, before: AccountIdentity | None, identity: AccountIdentity) -> None:
        self._current = identity
        if before is not None and before != identity:
            self._metrics.switches.inc()

    def _account_gone(self) -> None:
        log.warning("account_gone_from_terminal", terminal=self.terminal.terminal_id)

    async def _take_turn(self, work: Callable[[int], Awaitable[T]]) -> Turn[T]:
        if self._waiting >= MOST_WAITING:
            raise self._overloaded()
        asked = time.perf_counter()
        self._waiting += 1
        try:
            async with asyncio.timeout(QUEUE_DEADLINE_S):
                await self._turn.acquire()
        except TimeoutError:
            raise self._overloaded() from None
        finally:
            self._waiting -= 1
        try:
            began = time.perf_counter()
            token = self._token()
            value = await work(token)
            ended = time.perf_counter()
        finally:
            self._turn.release()
        return Turn(value, token, (began - asked) * 1000, (ended - began) * 1000)

    def _overloaded(self) -> ServiceOverloaded:
        return ServiceOverloaded(
            f"too many wait for terminal {self.terminal.terminal_id}", retry_after_s=2
        )

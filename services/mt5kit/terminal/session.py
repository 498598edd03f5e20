"""Turns of one terminal that several accounts share: who is logged in, and who comes next."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import structlog

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import WrongAccount
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.protocol import LOGIN_DEADLINE_S, AccountTerminal

log = structlog.get_logger(__name__)

T = TypeVar("T")
CredentialsOf: TypeAlias = Callable[[], Awaitable[Credentials]]
"""Fetches an account's credentials when a login needs them, and not before."""


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """What a turn gave, and the milliseconds it waited and took."""

    value: T
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
        self._current: AccountIdentity | None = None

    async def prove(
        self, credentials: Credentials, *, deadline_s: float = LOGIN_DEADLINE_S
    ) -> Turn[Snapshot]:
        """Log in with these credentials, even if the account is in, and look.

        Raises:
            LoginRefused: The broker refused them.
            BrokerTimeout: The broker did not answer.
            TerminalUnavailable: The terminal did not.
        """
        return await self._take_turn(
            lambda: self._sign_in(credentials, must_prove=True, deadline_s=deadline_s)
        )

    async def look(self, identity: AccountIdentity, credentials: CredentialsOf) -> Turn[Snapshot]:
        """Look at an account, logging it in when another one is in; raises as `prove` does."""

        async def work() -> Snapshot:
            if self._current == identity:
                try:
                    return await self.terminal.snapshot(self._token(), identity)
                except WrongAccount:
                    log.warning("account gone from terminal", terminal=self.terminal.terminal_id)
            return await self._sign_in(await credentials())

        return await self._take_turn(work)

    async def read(
        self,
        identity: AccountIdentity,
        credentials: CredentialsOf,
        work: Callable[[int], Awaitable[T]],
    ) -> Turn[T]:
        """Run `work(token)` while the account is in; raises as `prove` does, and as `work`."""

        async def with_login() -> T:
            if self._current == identity:
                try:
                    return await work(self._token())
                except WrongAccount:
                    log.warning("account gone from terminal", terminal=self.terminal.terminal_id)
            await self._sign_in(await credentials())
            return await work(self._token())

        return await self._take_turn(with_login)

    async def _sign_in(
        self,
        credentials: Credentials,
        *,
        must_prove: bool = False,
        deadline_s: float = LOGIN_DEADLINE_S,
    ) -> Snapshot:
        before, self._current = self._current, None
        snapshot = await self.terminal.sign_in(
            self._token(), credentials, must_prove=must_prove, deadline_s=deadline_s
        )
        self._current = snapshot.identity
        if before is not None and before != self._current:
            self._metrics.switches.inc()
        return snapshot

    async def _take_turn(self, work: Callable[[], Awaitable[T]]) -> Turn[T]:
        asked = time.perf_counter()
        async with self._turn:
            began = time.perf_counter()
            value = await work()
            ended = time.perf_counter()
        return Turn(value, (began - asked) * 1000, (ended - began) * 1000)

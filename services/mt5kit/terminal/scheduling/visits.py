"""Who is in a terminal, and the calls that look and log in."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.errors import (
    BrokerTimeout,
    CallFailed,
    LoginRefused,
    Mt5SwarmError,
    WrongAccount,
)
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.protocol import LOGIN_DEADLINE_S, AccountTerminal
from mt5kit.terminal.scheduling.agenda import Visit
from mt5kit.terminal.scheduling.breaker import Breaker
from mt5kit.terminal.scheduling.gate import LoginGate, within
from mt5kit.terminal.scheduling.parts import Entrant, SchedulerParts, SchedulerRules
from mt5kit.terminal.scheduling.telling import Telling
from mt5kit.terminal.scheduling.turns import Looked, ProofTurn

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Weight of the newest login: five logins after a change the estimate has moved two thirds.
NEWEST_SWITCH: Final = 0.2
# No call has a longer deadline.
LONGEST_LEFT_S: Final = LOGIN_DEADLINE_S


class Visits:
    """Logs accounts in and looks at them, one call at a time, and tells the breaker of each call.

    The agent checks the identity inside every call, so a wrong memory of who is in costs a login
    and never an answer.

    Args:
        terminal: The terminal.
        token: The fencing token of the lease at this moment.
        parts: Budget, refusals, events and metrics.
        rules: Deadlines.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        terminal: AccountTerminal,
        token: Callable[[], int],
        parts: SchedulerParts,
        rules: SchedulerRules,
        clock: Callable[[], float],
    ) -> None:
        self._events = Telling(parts.events)
        self.visit = Visit()
        self.breaker = Breaker(self._events.changed)
        self.switch_s: float | None = None
        self.last_call = clock()
        self.call_began: float | None = None
        self.signing_in = False
        self.gate = LoginGate(parts, rules, clock)
        self._terminal = terminal
        self.token = token
        self._parts = parts
        self._rules = rules
        self._clock = clock
        self._last_in: AccountIdentity | None = None

    async def look(
        self, entrant: Entrant, *, spare: bool, wanted: Callable[[], bool]
    ) -> Looked | None:
        """Look at an account, logging it in where needed.

        Args:
            entrant: The account.
            spare: Nobody waits for it.
            wanted: Asked before the terminal is taken for a login; the look is None if not.

        Raises:
            BudgetShort: Its broker server has had its logins, or is given none for refreshes.
            LoginRefused: The broker refused the credentials, now or earlier.
            BrokerTimeout: The broker did not answer, now or a moment ago.
            WrongAccount: The login gave another account than the one asked for.
            TerminalUnavailable: No lease, or no answer.
        """
        if self.visit.identity == entrant.identity:
            self.visit.entrant = entrant
            try:
                return await self._look_here(entrant)
            except WrongAccount:
                self.gone(entrant.identity)
        credentials = await within(self._rules.fetch_deadline_s, entrant.credentials())
        if credentials.identity != entrant.identity:
            raise WrongAccount("the account has other credentials now", retry_after_s=1)
        self._parts.refusals.check(entrant.account_id, credentials)
        self.gate.check(entrant, spare=spare)
        await self.gate.take(entrant.identity.server, spare=spare)
        if not wanted():
            return None
        return await self._log_in(entrant, credentials, spare=spare)

    async def prove(self, turn: ProofTurn) -> Looked | None:
        """Try credentials by a login, even where the account is in; None if nobody waits now.

        Raises:
            BudgetShort: The broker server has had its logins.
            LoginRefused: The broker refused them.
            BrokerTimeout: The broker did not answer.
            TerminalUnavailable: No lease, or no answer.
        """
        await self.gate.take(turn.credentials.identity.server, spare=False)
        if turn.answer.done():
            return None
        token = self.token()
        turn.begun = self._clock()
        looked = await self._sign_in(token, turn.credentials, turn.login_deadline_s, proof=True)
        self._enter(looked, None)
        self._parts.refusals.proven(looked.snapshot.identity)
        return looked

    async def probe(self) -> None:
        """Ask who is in, by a real call, and believe it rather than our memory.

        Raises:
            TerminalUnavailable: No lease, or no answer.
        """
        token = self.token()
        deadline_s = self._rules.probe_deadline_s
        try:
            found = await self.timed(self._terminal.probe(token, deadline_s=deadline_s))
        except CallFailed:
            # Its Python answers. What stands behind it a login may mend, and nothing else.
            self.visit = Visit()
            raise
        if self.visit.identity is not None and found != self.visit.identity:
            self.gone(self.visit.identity)

    def forget(self) -> None:
        """Nobody is known to be in."""
        self.visit = Visit()

    def gone(self, identity: AccountIdentity) -> None:
        """Somebody else has logged the account out."""
        log.warning(
            "account_gone_from_terminal",
            terminal=self._terminal.terminal_id,
            server=identity.server,
        )
        self.visit = Visit()

    def call_left_s(self, switch_s: float) -> float:
        """Seconds that the call in progress will take still, if logins take `switch_s`."""
        if self.call_began is None:
            return 0.0
        lasted = self._clock() - self.call_began
        if lasted > switch_s:
            # What is late already: nothing says more of it than how late.
            return min(lasted, LONGEST_LEFT_S)
        # Everything but a login takes milliseconds.
        return switch_s - lasted if self.signing_in else 0.0

    async def timed(self, call: Awaitable[T]) -> T:
        """A call of the terminal, which shows whether it is well."""
        self.call_began = self._clock()
        try:
            answer = await call
        except Mt5SwarmError as failure:
            self.breaker.failed(failure, self._clock())
            raise
        else:
            self.breaker.answered()
            return answer
        finally:
            self.call_began = None
            self.last_call = self._clock()

    async def _look_here(self, entrant: Entrant) -> Looked:
        token = self.token()
        began = self._clock()
        deadline_s = self._rules.read_deadline_s
        try:
            snapshot = await self.timed(
                self._terminal.snapshot(token, entrant.identity, deadline_s=deadline_s)
            )
        except CallFailed:
            # The next turn signs in, which costs no login if the account is still in.
            self.visit = Visit()
            raise
        self.visit.owes_look, self.visit.looked_last = False, True
        return self._own(entrant, Looked(snapshot, token, began, self._clock(), logged_in=False))

    async def _log_in(self, entrant: Entrant, credentials: Credentials, *, spare: bool) -> Looked:
        token = self.token()
        began = self._clock()
        try:
            looked = await self._sign_in(token, credentials, self._rules.login_deadline_s)
        except LoginRefused as refused:
            self._refused(entrant, credentials, refused, spare=spare)
            raise
        except BrokerTimeout:
            server = entrant.identity.server
            log.warning("broker_silent", terminal=self._terminal.terminal_id, server=server)
            self.gate.silences.timed_out(entrant.account_id, server, began, self._clock())
            raise
        self._own(entrant, looked)
        self._enter(looked, entrant)
        return looked

    def _refused(
        self, entrant: Entrant, credentials: Credentials, error: LoginRefused, *, spare: bool
    ) -> None:
        """Remember it, and tell."""
        account_id, server = entrant.account_id, entrant.identity.server
        log.warning(
            "login_refused",
            account_id=account_id,
            terminal=self._terminal.terminal_id,
            server=server,
            spare=spare,
        )
        refusals = self._parts.refusals
        refusals.remember(account_id, credentials, error)
        self._events.refused(account_id, error)
        if spare and refusals.spare_refused(account_id, server, self._clock()):
            log.warning("refreshes_paused", server=server)

    async def _sign_in(
        self, token: int, credentials: Credentials, deadline_s: float, *, proof: bool = False
    ) -> Looked:
        await self._check_alive(token)
        # Whatever comes of it, the account that was in may be out.
        self.visit = Visit()
        began = self._clock()
        self.signing_in = True
        try:
            signed = await self.timed(
                self._terminal.sign_in(token, credentials, must_prove=proof, deadline_s=deadline_s)
            )
        finally:
            self.signing_in = False
        ended = self._clock()
        if signed.logged_in:
            self._measure(ended - began)
        return Looked(signed.snapshot, token, began, ended, signed.logged_in)

    async def _check_alive(self, token: int) -> None:
        """Find a frozen terminal in seconds: a login is waited for ten times as long."""
        deadline_s = self._rules.probe_deadline_s
        try:
            await self.timed(self._terminal.probe(token, deadline_s=deadline_s))
        except CallFailed:
            # Its Python answers, and what stands behind it a login may mend.
            return

    def _enter(self, looked: Looked, entrant: Entrant | None) -> None:
        identity = looked.snapshot.identity
        self.visit = Visit(identity, entrant, looked.ended, owes_look=True, looked_last=True)
        if looked.logged_in:
            self.gate.silences.logged_in(self.visit.account_id, identity.server)
        if self._last_in not in {None, identity}:
            self._parts.metrics.switches.inc()
        self._last_in = identity

    def _own(self, entrant: Entrant, looked: Looked) -> Looked:
        if looked.snapshot.identity != entrant.identity:
            # The broker renamed its server, or the terminal is not what it should be.
            self.visit = Visit()
            raise WrongAccount("the terminal answered for another account than the one asked for")
        return looked

    def _measure(self, seconds: float) -> None:
        before = seconds if self.switch_s is None else self.switch_s
        self.switch_s = before + NEWEST_SWITCH * (seconds - before)

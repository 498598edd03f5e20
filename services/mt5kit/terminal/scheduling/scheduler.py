"""The scheduler of one terminal that several accounts share."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import Mt5SwarmError, ServiceOverloaded, TerminalMoved, TerminalTimeout
from mt5kit.terminal.chunks import Chunk
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.protocol import AccountTerminal
from mt5kit.terminal.scheduling.gate import within
from mt5kit.terminal.scheduling.loop import TurnLoop
from mt5kit.terminal.scheduling.parts import (
    DEFAULT_RULES,
    Entrant,
    SchedulerParts,
    SchedulerRules,
    Turn,
)
from mt5kit.terminal.scheduling.refresh import ASSUMED_SWITCH_S
from mt5kit.terminal.scheduling.turns import AnyTurn, JobTurn, LookTurn, ProofTurn

T = TypeVar("T")

# The least that callers are told to wait.
LEAST_RETRY_S: Final = 0.1
# A login takes a second or two. Who runs out of time sooner came too late; later, it is the
# terminal that is late.
SLOW_CALL_S: Final = 5.0


class TerminalScheduler:
    """Gives turns of one terminal, one call at a time, and refreshes while nobody waits.

    One task makes every call, so a waiter that is cancelled takes no call with it. Who is next,
    `agenda` says; what is refreshed, `refresh`. While the terminal does not answer, turns fail
    at once until a probe is answered.

    Args:
        terminal: The terminal.
        token: The fencing token of our lease, at this moment; raises TerminalUnavailable
            without a lease.
        parts: Budget, demand, events, refusals and metrics.
        rules: Bounds.
        clock: Monotonic seconds; the event loop's timers must agree with it.
    """

    def __init__(
        self,
        terminal: AccountTerminal,
        token: Callable[[], int],
        parts: SchedulerParts,
        rules: SchedulerRules = DEFAULT_RULES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.terminal_id = terminal.terminal_id
        self._refusals = parts.refusals
        self._rules = rules
        self._clock = clock
        self._loop = TurnLoop(terminal, token, parts, rules, clock)
        self._agenda = self._loop.agenda
        self._visits = self._loop.visits

    @property
    def switch_s(self) -> float | None:
        """Seconds that a login takes, the newest weighing most; None before the first."""
        return self._visits.switch_s

    @property
    def up(self) -> bool:
        """Whether the terminal answers, as far as anybody has noticed."""
        return not self._visits.breaker.open

    @property
    def waiting(self) -> int:
        """How many turns wait."""
        return len(self._agenda)

    @property
    def current(self) -> str | None:
        """The account that is in, as far as we know and if it is one of ours."""
        return self._visits.visit.account_id

    def start(self) -> None:
        """Begin to give turns; needs a running event loop."""
        self._loop.start()

    async def hand_over(self) -> None:
        """Refuse all turns but those of the call in progress, and wait for that to end."""
        await self._loop.close()

    async def prove(self, credentials: Credentials, *, deadline_s: float) -> Turn[Snapshot]:
        """Log in with these credentials, even if the account is in, and look.

        The snapshot says who is in: that is the account's identity, not what was typed.

        Args:
            credentials: As typed.
            deadline_s: Seconds for the login, from when it begins.

        Raises:
            LoginRefused: The broker refused them.
            BrokerTimeout: The broker did not answer.
            ServiceOverloaded: Too many wait for this terminal, or waited too long.
            TerminalUnavailable: The terminal did not answer.
        """
        asked = self._clock()
        turn = ProofTurn(
            asked=asked,
            deadline=asked + self._rules.proof_patience_s,
            credentials=credentials,
            login_deadline_s=deadline_s,
        )
        return await self._take(turn, turn.answer)

    async def look(
        self, entrant: Entrant, *, max_age_s: float = 0.0, deadline_s: float
    ) -> Turn[Snapshot]:
        """Look at an account, logging it in when another one is in; raises as `prove` does.

        Args:
            entrant: The account.
            max_age_s: A call in progress serves too if it began at most this long ago.
            deadline_s: Seconds for all of it.

        Raises:
            WrongAccount: The login gave another account than the one asked for.
        """
        asked = self._clock()
        await self._check_refused(entrant)
        turn = LookTurn(
            asked=asked, deadline=asked + deadline_s, entrant=entrant, max_age_s=max_age_s
        )
        self._foresee(turn)
        return await self._take(turn, turn.answer)

    async def work(
        self,
        entrant: Entrant,
        step: Callable[[int], Awaitable[Chunk[T]]],
        *,
        deadline_s: float,
    ) -> Turn[T]:
        """Take steps while the account is in, until one gives the result; raises as `look` does.

        Between two steps more urgent turns go first, and other accounts may be in meanwhile.
        `broker_ms` is the time of the steps alone.

        Args:
            entrant: The account.
            step: Takes the fencing token; at most 250 ms of terminal time each. What it raises
                ends the work, except for a first WrongAccount: then the account is logged in
                again, and the step taken again.
            deadline_s: Seconds for all of it.
        """
        asked = self._clock()
        await self._check_refused(entrant)
        turn = JobTurn(
            asked=asked, deadline=asked + deadline_s, entrant=entrant, step=step, since=asked
        )
        return await self._take(turn, turn.answer)

    def forget(self, account_id: str, reason: Mt5SwarmError | None = None) -> None:
        """An account has gone: its turns fail, and nothing of it is remembered.

        Args:
            account_id: The account.
            reason: Why; without one it has moved to another terminal, turns fail with
                TerminalMoved, and a refusal of its credentials stays known.
        """
        gone = reason or TerminalMoved(f"the account has left terminal {self.terminal_id}")
        self._agenda.fail(gone, lambda turn: _account_of(turn) == account_id)
        self._agenda.arrivals.forget(account_id)
        self._loop.serving.forget(account_id)
        self._loop.plan.forget(account_id)
        self._visits.gate.silences.forget(account_id)
        if reason is not None:
            self._refusals.clear(account_id)
        if self._visits.visit.account_id == account_id:
            self._visits.visit.entrant = None

    def leave(self, account_id: str) -> None:
        """An account is on another terminal now: turns that wait fail with TerminalMoved.

        The call in progress is answered, and told of, whoever it is for.
        """
        moved = TerminalMoved(f"the account has left terminal {self.terminal_id}")
        serves = self._loop.serving.serves
        self._agenda.fail(moved, lambda turn: _account_of(turn) == account_id and not serves(turn))
        self._agenda.arrivals.forget(account_id)
        self._loop.plan.forget(account_id)
        self._visits.gate.silences.forget(account_id)

    def expected_wait_s(self, account_id: str | None = None) -> float:
        """Seconds until a turn asked for now would be answered, as far as can be foreseen.

        Args:
            account_id: Whose turn; without it, that of an account that is not in.
        """
        breaker, now = self._visits.breaker, self._clock()
        if breaker.open:
            return breaker.retry_after_s(now)
        wait_s = self._queue_s()
        if account_id is None or self._needs_login(account_id):
            wait_s += self._switch_s
        if account_id is not None and account_id != self.current:
            server = self._loop.plan.server_of(account_id)
            silent_s = self._visits.gate.silences.until(account_id, server) - now
            if silent_s > 0:
                wait_s = max(wait_s, silent_s + self._switch_s)
        return max(wait_s, LEAST_RETRY_S)

    def _needs_login(self, account_id: str) -> bool:
        """Whether a turn asked for now would take a login that nobody waits for so far."""
        if account_id == self.current or self._agenda.awaits(account_id):
            return False
        login = self._loop.serving.logging_in
        return not isinstance(login, tuple) or login[0] != account_id

    def _foresee(self, turn: LookTurn) -> None:
        """Refuse at once what would not be answered in time: waiting in vain costs everybody."""
        account_id = turn.entrant.account_id
        if self._visits.breaker.open or not self._needs_login(account_id):
            return
        if turn.asked + self._queue_s() + self._switch_s > turn.deadline:
            raise self._overloaded()

    @property
    def _switch_s(self) -> float:
        return ASSUMED_SWITCH_S if self.switch_s is None else self.switch_s

    def _queue_s(self) -> float:
        """Seconds that the call in progress and the logins others wait for will take."""
        logins = self._agenda.logins_ahead(
            self._visits.visit.identity, self._loop.serving.logging_in
        )
        return self._visits.call_left_s(self._switch_s) + logins * self._switch_s

    async def _check_refused(self, entrant: Entrant) -> None:
        """Let a refused account fail without queueing, while its credentials are the same."""
        account_id = entrant.account_id
        if self._visits.visit.identity != entrant.identity and self._refusals.knows(account_id):
            credentials = await within(self._rules.fetch_deadline_s, entrant.credentials())
            self._refusals.check(account_id, credentials)

    async def _take(self, turn: AnyTurn, answer: "asyncio.Future[Turn[T]]") -> Turn[T]:
        if len(self._agenda) >= self._rules.most_waiting:
            raise self._overloaded()
        self._loop.admit(turn)
        try:
            await asyncio.wait({answer}, timeout=turn.deadline - self._clock())
            if isinstance(turn, ProofTurn) and turn.begun is not None:
                # A login that has begun ends by its own deadline.
                await asyncio.wait({answer})
            if not answer.done():
                raise self._late(turn)
            return answer.result()
        finally:
            self._agenda.remove(turn)
            if not answer.cancel() and not answer.cancelled():
                # A waiter that was cancelled meanwhile leaves a failure nobody asks for.
                answer.exception()

    def _late(self, turn: AnyTurn) -> Mt5SwarmError:
        began = self._visits.call_began
        slow = began is not None and self._clock() - began >= SLOW_CALL_S
        if slow and isinstance(turn, LookTurn) and self._loop.serving.serves(turn):
            return TerminalTimeout(
                f"terminal {self.terminal_id} did not answer in time", retry_after_s=1
            )
        return self._overloaded()

    def _overloaded(self) -> ServiceOverloaded:
        return ServiceOverloaded(
            f"too many wait for terminal {self.terminal_id}", retry_after_s=self.expected_wait_s()
        )


def _account_of(turn: AnyTurn) -> str | None:
    return None if isinstance(turn, ProofTurn) else turn.entrant.account_id

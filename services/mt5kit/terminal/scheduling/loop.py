"""The one task of a scheduler, and what it does next."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from mt5kit.errors import Mt5SwarmError, TerminalHandedOver, TerminalUnavailable
from mt5kit.terminal.protocol import AccountTerminal
from mt5kit.terminal.scheduling.agenda import Agenda, Attend, Prove, Rest, RunChunk
from mt5kit.terminal.scheduling.parts import SchedulerParts, SchedulerRules
from mt5kit.terminal.scheduling.refresh import Pick, RefreshPlan
from mt5kit.terminal.scheduling.refreshing import Refresher
from mt5kit.terminal.scheduling.serving import Serving
from mt5kit.terminal.scheduling.turns import AnyJob, AnyTurn
from mt5kit.terminal.scheduling.visits import Visits

log = structlog.get_logger(__name__)

# Another replica takes over within about this after a hand-over.
HANDED_OVER_RETRY_S: Final = 0.5
# Without a lease, or after a fault of our own, the loop does not spin.
PAUSE_S: Final = 1.0


class TurnLoop:
    """Makes every call of one terminal: turns, then refreshes, then probes.

    Args:
        terminal: The terminal.
        token: The fencing token of our lease; raises TerminalUnavailable without one.
        parts: Budget, demand, events, refusals and metrics.
        rules: Bounds.
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
        self.agenda = Agenda(rules)
        self.plan = RefreshPlan(rules)
        self.visits = Visits(terminal, token, parts, rules, clock)
        self.serving = Serving(
            self.agenda, self.visits, self.plan, parts, clock, lambda: self._closing
        )
        self._refresher = Refresher(
            self.plan, parts.source, self.visits, self.serving, rules, clock
        )
        self._terminal_id = terminal.terminal_id
        self._rules = rules
        self._clock = clock
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name=f"{self._terminal_id}-scheduler")

    async def close(self) -> None:
        """Fail whoever waits, but for the call in progress, and wait for its end."""
        self._closing = True
        self.agenda.fail(self._handed_over(), lambda turn: not self.serving.serves(turn))
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    def admit(self, turn: AnyTurn) -> None:
        """Let a turn wait.

        Raises:
            TerminalHandedOver: The terminal is being handed over.
            TerminalUnavailable: It does not answer.
        """
        if self._closing:
            raise self._handed_over()
        if self.visits.breaker.open:
            raise self._down()
        self.agenda.add(turn)
        self._wake.set()

    async def _run(self) -> None:
        try:
            while not self._closing:
                self._wake.clear()
                try:
                    await self._next()
                except Exception:
                    log.exception("scheduler_stumbled", terminal=self._terminal_id)
                    await self._rest(PAUSE_S)
        finally:
            self._closing = True
            self.agenda.fail(self._handed_over(), lambda _turn: True)

    async def _next(self) -> None:
        """Do one thing: at most one turn, one refresh or one probe."""
        try:
            self.visits.token()
        except TerminalUnavailable as no_lease:
            self.serving.lease_lost(no_lease)
            await self._rest(PAUSE_S)
            return
        now = self._clock()
        breaker = self.visits.breaker
        if breaker.open:
            self.agenda.fail(self._down(), lambda _turn: True)
            if now < breaker.probe_at:
                await self._rest(breaker.probe_at - now)
            else:
                await self._probe()
            return
        action = self.agenda.next(now, self.visits.visit)
        if isinstance(action, Attend):
            await self.serving.attend(action)
        elif isinstance(action, Prove):
            await self.serving.prove(action.turn)
        elif isinstance(action, RunChunk):
            await self._work(action.job, now)
        elif action.free:
            await self._use_idle_time(action, now)
        else:
            await self._rest(action.until - now)

    async def _work(self, job: AnyJob, now: float) -> None:
        """A step of a job, unless a look is due here, or elsewhere and it was kept waiting."""
        visit = self.visits.visit
        pick = self._refresher.pick()
        if isinstance(pick, Pick) and pick.account_id == visit.account_id:
            await self._refresher.refresh(pick.account_id, self._undisturbed)
        elif isinstance(pick, Pick) and self._gives_way(now):
            self.agenda.rest_jobs(visit.identity, now + self._rules.job_patience_s)
            await self._refresher.refresh(pick.account_id, self._undisturbed)
        else:
            await self.serving.step(job)

    def _gives_way(self, now: float) -> bool:
        """Whether the jobs of the account that is in have kept refreshes waiting long enough."""
        return now >= self.visits.visit.began + self._rules.job_patience_s and self._undisturbed()

    async def _use_idle_time(self, rest: Rest, now: float) -> None:
        pick = self._refresher.pick()
        probe_at = self.visits.last_call + self._rules.probe_every_s
        visit = self.visits.visit
        linger_until = visit.job_ended + self._rules.job_linger_s
        if isinstance(pick, Pick) and pick.account_id != visit.account_id and now < linger_until:
            await self._rest(min(rest.until, linger_until) - now)
        elif isinstance(pick, Pick):
            await self._refresher.refresh(pick.account_id, self._undisturbed)
        elif probe_at <= now:
            await self._probe()
        else:
            await self._rest(min(rest.until, pick.until, probe_at) - now)

    def _undisturbed(self) -> bool:
        return not self._closing and not self.agenda.pressing

    async def _probe(self) -> None:
        # The breaker is told by the call itself.
        with suppress(Mt5SwarmError):
            await self.visits.probe()

    async def _rest(self, seconds: float) -> None:
        """Wait until somebody comes, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _down(self) -> TerminalUnavailable:
        return TerminalUnavailable(
            f"terminal {self._terminal_id} does not answer",
            retry_after_s=self.visits.breaker.retry_after_s(self._clock()),
        )

    def _handed_over(self) -> TerminalHandedOver:
        return TerminalHandedOver(
            f"terminal {self._terminal_id} is being handed over", retry_after_s=HANDED_OVER_RETRY_S
        )

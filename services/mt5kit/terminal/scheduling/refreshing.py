"""Looks that nobody waits for."""

from collections.abc import Callable
from typing import Final

import structlog

from mt5kit.errors import BrokerTimeout, LoginRefused, Mt5SwarmError, StaleToken
from mt5kit.terminal.scheduling.gate import BudgetShort, within
from mt5kit.terminal.scheduling.parts import Entrant, RefreshSource, SchedulerRules
from mt5kit.terminal.scheduling.refresh import Nothing, Pick, Present, RefreshPlan
from mt5kit.terminal.scheduling.serving import Serving
from mt5kit.terminal.scheduling.visits import Visits

log = structlog.get_logger(__name__)

# An account that is not to be refreshed is asked about again: it may have come back.
RECHECK_S: Final = 30.0
# After a failure that says nothing of the next attempt.
RETRY_S: Final = 5.0


class Refresher:
    """Takes the looks that the plan picks; a failure leaves the account out for a while.

    Args:
        plan: Picks.
        source: Knows demand and accounts.
        visits: Who is in.
        serving: Takes the looks.
        rules: Deadlines.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        plan: RefreshPlan,
        source: RefreshSource,
        visits: Visits,
        serving: Serving,
        rules: SchedulerRules,
        clock: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._source = source
        self._visits = visits
        self._serving = serving
        self._rules = rules
        self._clock = clock
        self._ask_again_at = clock()

    def pick(self) -> Pick | Nothing:
        """The look to take now, or when to ask again."""
        visit = self._visits.visit
        present = Present(visit.account_id, visit.began, self._visits.switch_s)
        now = self._clock()
        try:
            demand = self._source.demand()
        except Exception:
            # Turns and probes must go on without it.
            log.exception("demand_unknown")
            return Nothing(now + RETRY_S)
        return self._plan.next(demand, present, now)

    async def refresh(self, account_id: str, wanted: Callable[[], bool]) -> None:
        """Look at an account, unless a login is needed and `wanted` says no."""
        try:
            entrant = await self._entrant(account_id)
            if entrant is None:
                self._skip(account_id, RECHECK_S)
            else:
                await self._look(entrant, wanted)
        except LoginRefused:
            self._skip(account_id, RECHECK_S)
        except StaleToken as lost:
            self._skip(account_id, RETRY_S)
            self._serving.lease_lost(lost)
        except Mt5SwarmError as failure:
            self._skip(account_id, RETRY_S)
            log.info("refresh_failed", code=failure.code, why=failure.message)
        except Exception:
            self._skip(account_id, RETRY_S)
            log.exception("refresh_failed")

    async def _entrant(self, account_id: str) -> Entrant | None:
        here = self._visits.visit.entrant
        asking = self._source.entrant
        if here is None or here.account_id != account_id:
            return await within(self._rules.fetch_deadline_s, asking(account_id))
        now = self._clock()
        if now < self._ask_again_at:
            return here
        self._ask_again_at = now + RETRY_S
        try:
            return await within(self._rules.fetch_deadline_s, asking(account_id))
        except Mt5SwarmError:
            # The account is in: looking at it needs no store.
            return here

    async def _look(self, entrant: Entrant, wanted: Callable[[], bool]) -> None:
        account_id, server = entrant.account_id, entrant.identity.server
        silences = self._visits.gate.silences
        try:
            await self._serving.look(entrant, spare=True, wanted=wanted)
        except BudgetShort as short:
            self._skip(account_id, short.wait_s)
            self._plan.skip_server(short.server, self._clock() + short.wait_s)
        except BrokerTimeout:
            # The others of its broker go on, unless it was not the first to hang.
            now = self._clock()
            until = max(silences.until(account_id, server), now + RETRY_S)
            server_until = silences.server_until(server)
            if server_until > now:
                self._plan.skip(account_id, until)
                self._plan.skip_server(server, server_until)
            else:
                self._plan.hung(account_id, now, until)

    def _skip(self, account_id: str, seconds: float) -> None:
        self._plan.skip(account_id, self._clock() + seconds)

"""Whether a login may be made now: budgets, pauses of refreshes, brokers that are silent."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mt5kit.errors import BrokerTimeout, ServiceOverloaded
from mt5kit.terminal.scheduling.parts import Entrant, SchedulerParts, SchedulerRules
from mt5kit.terminal.scheduling.silences import Silences

T = TypeVar("T")


class BudgetShort(Exception):
    """A broker server has had its logins, or has none for refreshes, for `wait_s` seconds."""

    def __init__(self, server: str, wait_s: float) -> None:
        super().__init__(f"no login left for {server}")
        self.server = server
        self.wait_s = wait_s


class LoginGate:
    """Asked before each login of a terminal.

    Args:
        parts: Budget and refusals.
        rules: Deadlines.
        clock: Monotonic seconds.

    Attributes:
        silences: Of brokers, on this terminal.
    """

    def __init__(
        self, parts: SchedulerParts, rules: SchedulerRules, clock: Callable[[], float]
    ) -> None:
        self.silences = Silences()
        self._budget = parts.budget
        self._refusals = parts.refusals
        self._rules = rules
        self._clock = clock

    def check(self, entrant: Entrant, *, spare: bool) -> None:
        """Let pass a login that is worth trying; `spare`: nobody waits for it.

        Raises:
            BudgetShort: The broker refuses logins, and nobody waits for this one.
            BrokerTimeout: The broker did not answer a moment ago.
        """
        server, now = entrant.identity.server, self._clock()
        paused_s = self._refusals.paused_until(server) - now
        if spare and paused_s > 0:
            raise BudgetShort(server, paused_s)
        silent_s = self.silences.until(entrant.account_id, server) - now
        if silent_s > 0:
            raise BrokerTimeout(
                "the broker's server did not answer just now", retry_after_s=silent_s
            )

    async def take(self, server: str, *, spare: bool) -> None:
        """Take a login out of the budget.

        Raises:
            BudgetShort: None is left.
            ServiceOverloaded: The budget's store did not answer in time.
        """
        taken = self._budget.take(server, spare=spare)
        wait_s = await within(self._rules.fetch_deadline_s, taken)
        if wait_s > 0:
            raise BudgetShort(server, wait_s)


async def within(seconds: float, fetched: Awaitable[T]) -> T:
    """Something fetched from a store, while the terminal waits for it.

    Raises:
        ServiceOverloaded: It did not come in time.
    """
    try:
        async with asyncio.timeout(seconds):
            return await fetched
    except TimeoutError:
        raise ServiceOverloaded("what a login needs did not come in time") from None

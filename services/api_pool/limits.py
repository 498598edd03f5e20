"""Rate limits kept in this process: the generic cell rate algorithm, one number a caller."""

import time
from collections import OrderedDict
from collections.abc import Callable

from mt5kit.errors import RateLimited

# A second's worth at once: bursts are what honest pages make when they open.
BURST_S = 1.0
# Far more callers than are active within a second; the ones idle longest are forgotten.
MOST_CALLERS = 10_000


class RateLimiter:
    """Lets each caller through `rate` times a second, with a burst of a second's worth.

    Args:
        what: The caller's kind, for the message.
        rate: Requests per second.
        clock: Monotonic seconds.
    """

    def __init__(self, what: str, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._interval = 1 / rate
        self._burst = max(BURST_S, self._interval)
        self._clock = clock
        self._due: OrderedDict[str, float] = OrderedDict()

    def admit(self, caller: str) -> None:
        """Count one request.

        Raises:
            RateLimited: Too many; `retry_after_s` says when the next one passes.
        """
        now = self._clock()
        due = max(self._due.get(caller, now), now)
        wait = due + self._interval - self._burst - now
        if wait > 0:
            raise RateLimited(
                f"too many requests for this {self._what}", retry_after_s=round(wait, 3)
            )
        self._due[caller] = due + self._interval
        self._due.move_to_end(caller)
        if len(self._due) > MOST_CALLERS:
            self._due.popitem(last=False)

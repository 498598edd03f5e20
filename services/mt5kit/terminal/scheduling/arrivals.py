"""How soon the next reader of an account is to be expected."""

import math
from typing import Final

# Weight of the newest gap: four arrivals in a row make an account hot.
NEWEST: Final = 0.3
# A longer gap says no more than that the account was not hot then.
LONGEST_GAPS: Final = 4.0
# Of Poisson arrivals 98 % come within four mean gaps.
MEAN_GAPS: Final = 4.0
# More accounts than any terminal has: those that left are dropped.
MOST_KNOWN: Final = 256


class Arrivals:
    """Mean gaps between the arrivals of each account; seconds of one monotonic clock.

    Args:
        linger_s: The longest that waiting for another arrival may pay.
    """

    def __init__(self, linger_s: float) -> None:
        self._linger_s = linger_s
        self._last: dict[str, float] = {}
        self._gap: dict[str, float] = {}

    def count(self, account_id: str, now: float) -> None:
        """One more came."""
        last = self._last.pop(account_id, None)
        if last is not None:
            gap = min(now - last, LONGEST_GAPS * self._linger_s)
            before = self._gap.get(account_id, gap)
            self._gap[account_id] = before + NEWEST * (gap - before)
        # Popped and set again, so that the first key is the one unheard of for longest.
        self._last[account_id] = now
        if len(self._last) > MOST_KNOWN:
            self.forget(next(iter(self._last)))

    def forget(self, account_id: str) -> None:
        """The account has gone."""
        self._last.pop(account_id, None)
        self._gap.pop(account_id, None)

    def linger_until(self, account_id: str | None) -> float:
        """Until when the next arrival is worth waiting for; in the past when it is not."""
        if account_id is None:
            return -math.inf
        gap = self._gap.get(account_id, math.inf)
        if gap > self._linger_s:
            return -math.inf
        return self._last[account_id] + min(MEAN_GAPS * gap, self._linger_s)

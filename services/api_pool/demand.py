"""How often accounts are read: counted where they are, summed where their terminal is."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

# Accounts read within it are refreshed; a page left open asks more often than that.
ACTIVE_S: Final = 300.0
# The rate is an average over about a minute: long enough to tell 0.1 reads a second from none.
RATE_S: Final = 60.0
# Accounts counted between two pulses; beyond it the count of the rest is lost, and nothing else.
MOST_COUNTED: Final = 10_000


class ReadCounter:
    """Reads answered by this replica since the last pulse, by the terminal that serves them."""

    def __init__(self) -> None:
        self._reads: dict[tuple[str, str], int] = {}

    def count(self, terminal_id: str, account_id: str) -> None:
        """Count one read."""
        key = terminal_id, account_id
        if key in self._reads or len(self._reads) < MOST_COUNTED:
            self._reads[key] = self._reads.get(key, 0) + 1

    def take(self) -> dict[str, dict[str, int]]:
        """The counts by terminal and account; counting begins anew."""
        reads, self._reads = self._reads, {}
        by_terminal: dict[str, dict[str, int]] = {}
        for (terminal_id, account_id), times in reads.items():
            by_terminal.setdefault(terminal_id, {})[account_id] = times
        return by_terminal


class DemandBook:
    """What is read of one terminal's accounts, in the whole cluster.

    The rate is an exponentially weighted moving average with the time constant `RATE_S`: a read
    adds 1 / RATE_S, and everything decays by exp(-t / RATE_S).

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rates: dict[str, tuple[float, float]] = {}
        self._last_read: dict[str, float] = {}

    def add(self, reads: Mapping[str, int]) -> None:
        """Count reads of accounts."""
        now = self._clock()
        for account_id, times in reads.items():
            self._rates[account_id] = (self._rate(account_id, now) + times / RATE_S, now)
            self._last_read[account_id] = now

    def keep(self, accounts: Collection[str]) -> tuple[str, ...]:
        """Forget what is not among `accounts`; which ones that were."""
        gone = tuple(account_id for account_id in self._rates if account_id not in accounts)
        self.forget(gone)
        return gone

    def forget(self, accounts: Iterable[str]) -> None:
        """Forget these accounts."""
        for account_id in accounts:
            self._rates.pop(account_id, None)
            self._last_read.pop(account_id, None)

    def rates(self) -> dict[str, float]:
        """Reads per second of the accounts read within `ACTIVE_S`; the others are forgotten."""
        now = self._clock()
        self.forget([one for one, at in self._last_read.items() if now - at > ACTIVE_S])
        return {account_id: self._rate(account_id, now) for account_id in self._rates}

    def _rate(self, account_id: str, now: float) -> float:
        rate, at = self._rates.get(account_id, (0.0, now))
        return rate * math.exp((at - now) / RATE_S)

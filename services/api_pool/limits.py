"""Rate limits enforced in this process: the generic cell rate algorithm, one number a caller.

What a caller may do in the whole cluster is shared out between the replicas, about once a second
and by where its requests arrive; each replica enforces its own share and asks nobody.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from mt5kit.errors import RateLimited

# A second's worth at once: bursts are what honest pages make when they open.
BURST_S: Final = 1.0
# Far more callers than are active within a second; the ones idle longest are forgotten.
MOST_CALLERS: Final = 10_000
# What one exchange with the state store tells of; beyond it the default share must do.
MOST_DEMANDS: Final = 1000
# Requests per second. A caller whose share lags behind its moving here still gets answers.
LEAST_SHARE: Final = 0.1
# Sums of intervals are not exact; a clock of days still tells microseconds apart.
TOLERANCE_S: Final = 1e-6


class _Bucket:
    """One caller: when its debt is paid, at what rate, and how often it has asked."""

    __slots__ = ("asked", "burst", "due", "interval")

    def __init__(self, due: float, rate: float) -> None:
        self.due = due
        self.asked = 0
        self.interval = 1 / rate
        self.burst = max(BURST_S, self.interval)

    def retake(self, rate: float, now: float) -> None:
        """Go on at another rate with the requests that were left, so that moving makes none."""
        left = (self.burst - max(self.due - now, 0.0)) / self.interval
        self.interval = 1 / rate
        self.burst = max(BURST_S, self.interval)
        self.due = now + max(self.burst - left * self.interval, 0.0)


class RateLimiter:
    """Lets each caller through as often as its share allows, with a burst of a second's worth.

    With shares that sum to `rate`, the replicas together admit no more than twice `rate` in any
    second, the burst included; a share below one a second may add one request of its replica.

    Args:
        what: The caller's kind, for the message.
        rate: Requests per second in the whole cluster.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        what: str,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._rate = rate
        self._clock = clock
        self._default = rate
        self._shares: dict[str, float] = {}
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._asked_since = clock()

    @property
    def rate(self) -> float:
        """Requests per second and caller in the whole cluster."""
        return self._rate

    @property
    def default_share(self) -> float:
        """Requests per second of a caller that was given no share of its own."""
        return self._default

    def admit(self, caller: str) -> None:
        """Count one request.

        Raises:
            RateLimited: Too many; `retry_after_s` says when the next one passes.
        """
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._open(caller, now)
        else:
            self._buckets.move_to_end(caller)
        bucket.asked += 1
        due = max(bucket.due, now)
        wait = due + bucket.interval - bucket.burst - now
        if wait > TOLERANCE_S:
            raise RateLimited(
                f"too many requests for this {self._what}",
                # Zero would say that there is no need to wait.
                retry_after_s=max(round(wait, 3), 0.001),
            )
        bucket.due = due + bucket.interval

    def set_default_share(self, rate: float) -> None:
        """Requests per second of callers without a share: the rate over the live replicas."""
        now, self._default = self._clock(), max(rate, LEAST_SHARE)
        for caller, bucket in self._buckets.items():
            if caller not in self._shares:
                bucket.retake(self._default, now)

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """Replace every share; who is not named goes back to the default share."""
        now, before = self._clock(), self._shares
        self._shares = {caller: max(rate, LEAST_SHARE) for caller, rate in shares.items()}
        for caller in before.keys() | self._shares.keys():
            rate = self._shares.get(caller, self._default)
            if rate == before.get(caller, self._default):
                continue
            bucket = self._buckets.get(caller)
            if bucket is None:
                # Full as it stood under the old share, so that a new one brings no new burst.
                bucket = self._open(caller, now, before.get(caller, self._default))
            bucket.retake(rate, now)

    def demands(self) -> Mapping[str, float]:
        """Requests per second by caller since the last call, refused ones included.

        Returns:
            The `MOST_DEMANDS` busiest, busiest first.
        """
        now = self._clock()
        span = max(now - self._asked_since, 1e-3)
        self._asked_since = now
        asked: list[tuple[int, str]] = []
        for caller, bucket in self._buckets.items():
            if bucket.asked:
                asked.append((bucket.asked, caller))
                bucket.asked = 0
        asked.sort(key=lambda entry: -entry[0])
        return {caller: count / span for count, caller in asked[:MOST_DEMANDS]}

    def _open(self, caller: str, now: float, rate: float | None = None) -> _Bucket:
        bucket = _Bucket(now, rate or self._shares.get(caller, self._default))
        self._buckets[caller] = bucket
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        return bucket

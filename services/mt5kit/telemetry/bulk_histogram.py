"""A histogram for what happens to many at once."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class BulkHistogram(Collector):
    """Takes any number of equal observations at the price of one.

    `prometheus_client.Histogram` takes them one by one; this exposes the same buckets, count and
    sum.

    Args:
        name: Of the metric.
        documentation: Its help.
        buckets: Upper bounds, growing, of which none is negative; `+Inf` is added.
        registry: Where it is exposed.
    """

    def __init__(
        self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = [*buckets, inf]
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._lock = Lock()
        registry.register(self)

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value so many times."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += times
            self._sum += value * times

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Its name: a registry refuses a second one."""
        yield HistogramMetricFamily(self._name, self._documentation)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """See `Collector.collect`."""
        with self._lock:
            counts, total = [*accumulate(self._counts)], self._sum
        names = map(floatToGoString, self._bounds)
        buckets = [*zip(names, counts, strict=True)]
        yield HistogramMetricFamily(self._name, self._documentation, buckets, total)

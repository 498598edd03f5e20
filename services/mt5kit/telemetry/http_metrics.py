"""What is measured of HTTP; the names are those of contracts §7."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

# Around the promise of 200 ms, and up to a login.
REQUEST_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 20,
)  # fmt: skip


class HttpMetrics:
    """Metric objects of one application, in its own registry.

    Attributes:
        running: Requests being answered now; the gauge is read from it.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "api_request_duration_seconds",
            "Time from a request's arrival to its answer; turn=yes waited for a terminal",
            ("method", "route", "status", "turn"),
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.running = 0
        in_flight = Gauge(
            "api_requests_in_flight", "Requests being answered now", registry=registry
        )
        in_flight.set_function(lambda: self.running)
        self._observers: dict[tuple[str, str, int, str], Callable[[float], None]] = {}

    def observe(self, method: str, route: str, status: int, turn: str, elapsed_s: float) -> None:
        """Count one answer; looking a label set up anew each time would cost more than counting."""
        labels = (method, route, status, turn)
        observer = self._observers.get(labels)
        if observer is None:
            observer = self.duration.labels(method, route, str(status), turn).observe
            self._observers[labels] = observer
        observer(elapsed_s)

"""What is measured of HTTP; the names are those of contracts §7."""

from prometheus_client import CollectorRegistry, Gauge, Histogram

# Around the promise of 200 ms, and up to a login.
REQUEST_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 20,
)  # fmt: skip


class HttpMetrics:
    """Metric objects of one application, in its own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "api_request_duration_seconds",
            "Time from a request's arrival to its answer; turn=yes waited for a terminal",
            ("method", "route", "status", "turn"),
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.in_flight = Gauge(
            "api_requests_in_flight", "Requests being answered now", registry=registry
        )

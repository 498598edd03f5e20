"""What is measured of sessions that share terminals; the names are those of contracts §7."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a look of a moment ago up to the longest age a caller is given unasked.
AGE_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 300)
# From a terminal that is free up to the longest a request waits.
WAIT_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 1.5, 2, 3, 5, 8, 12, 15, 20)


class SessionMetrics:
    """Metric objects of one application, in its own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.pool_size = Gauge(
            "mt5_session_pool_size",
            "Accounts placed on the terminals that this replica holds",
            registry=registry,
        )
        self.pool_capacity = Gauge(
            "mt5_session_pool_capacity",
            "Accounts that the terminals held by this replica have room for",
            registry=registry,
        )
        self.age = Histogram(
            "mt5_snapshot_age_seconds",
            "Age of the look that a read was answered with",
            buckets=AGE_BUCKETS_S,
            registry=registry,
        )
        self.queue_wait = Histogram(
            "mt5_queue_wait_seconds",
            "Time a request waited for its turn on a terminal",
            buckets=WAIT_BUCKETS_S,
            registry=registry,
        )
        self.lease_events = Counter(
            "mt5_lease_events_total",
            "Leases of terminals gained and lost by this replica",
            ("event",),
            registry=registry,
        )

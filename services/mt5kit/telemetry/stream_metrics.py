"""What is measured of streams; the names are those of contracts §7."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Around the poll's step (20 ms), the spacing (100 ms) and the promise of 500 ms.
DELIVERY_BUCKETS_S = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 30,
)  # fmt: skip


class StreamMetrics:
    """Metric objects of one application, in its own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = Gauge("ws_active_connections", "Open sockets", registry=registry)
        self.accounts = Gauge(
            "ws_active_accounts", "Accounts this replica polls", registry=registry
        )
        self.sent = Counter(
            "ws_messages_sent_total",
            "Messages handed to sockets",
            ("type",),
            registry=registry,
        )
        self.closed = Counter(
            "ws_closed_total", "Sockets closed, by close code", ("code",), registry=registry
        )
        self.lease_events = Counter(
            "mt5_lease_events_total", "Leases gained and lost", ("event",), registry=registry
        )
        self.delivery = Histogram(
            "ws_delivery_latency_seconds",
            "From the terminal's first look at a change to its frame handed to a socket",
            buckets=DELIVERY_BUCKETS_S,
            registry=registry,
        )

"""What is measured of streams; the names are those of contracts §7."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from mt5kit.domain.instants import now_ms
from mt5kit.telemetry.bulk_histogram import BulkHistogram

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
        self._sent = Counter(
            "ws_messages_sent_total",
            "Messages handed to sockets",
            ("type",),
            registry=registry,
        )
        self._sent_of: dict[str, Counter] = {}
        self.closed = Counter(
            "ws_closed_total", "Sockets closed, by close code", ("code",), registry=registry
        )
        self.lease_events = Counter(
            "mt5_lease_events_total", "Leases gained and lost", ("event",), registry=registry
        )
        self._delivery = BulkHistogram(
            "ws_delivery_latency_seconds",
            "From the terminal's first look at a change to its frame handed to a socket",
            buckets=DELIVERY_BUCKETS_S,
            registry=registry,
        )

    def handed(self, kind: str, seen_ms: int | None, sockets: int = 1) -> None:
        """Count a message that has just been handed to sockets, and its age for each of them.

        Args:
            kind: Its type.
            seen_ms: When the terminal saw the change it tells of, UTC epoch milliseconds, if any.
            sockets: How many have been handed it.
        """
        if not sockets:
            return
        counter = self._sent_of.get(kind)
        if counter is None:
            # Finding a label's counter costs more than counting.
            counter = self._sent_of[kind] = self._sent.labels(kind)
        counter.inc(sockets)
        if seen_ms is not None:
            self._delivery.observe(max(0, now_ms() - seen_ms) / 1000, sockets)

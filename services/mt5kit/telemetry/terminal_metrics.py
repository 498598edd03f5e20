"""What is measured of terminals; the names are those of contracts §7."""

import contextlib

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a bare round trip (0.1 ms) over a snapshot of 500 positions (3 ms) to a login (seconds).
CALL_BUCKETS_S = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60,
)  # fmt: skip


# Callers name servers; a broker has a handful, and nobody here has a hundred brokers.
MOST_SERVERS = 100


class TerminalMetrics:
    """Metric objects of one application, in its own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._servers: set[str] = set()
        self.call_duration = Histogram(
            "mt5_terminal_call_duration_seconds",
            "Time from sending a call to a terminal until its answer or failure",
            ("op", "outcome"),
            buckets=CALL_BUCKETS_S,
            registry=registry,
        )
        self.up = Gauge(
            "mt5_terminal_up",
            "1 while a connection to the terminal stands",
            ("terminal",),
            registry=registry,
        )
        self.reconnects = Counter(
            "mt5_terminal_reconnects_total",
            "Connections to a terminal after its first",
            ("terminal",),
            registry=registry,
        )
        self.wrong_account_refusals = Counter(
            "mt5_wrong_account_refusals_total",
            "Answers a terminal refused because another account was logged in",
            registry=registry,
        )
        self.logins = Counter(
            "mt5_logins_total",
            "Logins by broker server and outcome",
            ("server", "outcome"),
            registry=registry,
        )
        self.switches = Counter(
            "mt5_session_switches_total",
            "Changes of the account a terminal is logged in to",
            registry=registry,
        )

    def forget_terminal(self, terminal_id: str) -> None:
        """Say nothing more of a terminal that is another replica's now."""
        with contextlib.suppress(KeyError):
            self.up.remove(terminal_id)

    def count_login(self, server: str, outcome: str) -> None:
        """Count a login; servers beyond the first hundred share a label."""
        if server not in self._servers and len(self._servers) < MOST_SERVERS:
            self._servers.add(server)
        known = server in self._servers
        self.logins.labels(server if known else "other", outcome).inc()

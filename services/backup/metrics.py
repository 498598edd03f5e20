"""How the backups stand, for Prometheus."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from backup.status import Status

PORT: Final = 9188
_TIMES: Final = {
    "looked": ("last_look", "the scheduler looked last"),
    "full": ("last_full", "the newest full backup of Postgres ended"),
    "snapshot": ("last_snapshot", "the newest snapshot of Redis was made"),
    "copied": ("last_copy", "the second place was last brought up to date"),
}


class Standing(Collector):
    """What the scheduler wrote down last; what has never been has no sample.

    Args:
        status_file: Where it writes.
    """

    def __init__(self, status_file: Path) -> None:
        self._file = status_file

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read it anew for each scrape."""
        status = Status.read(self._file)
        if status is None:
            return
        for field, (name, meaning) in _TIMES.items():
            at = getattr(status, field)
            if at is not None:
                full = f"mt5_backup_{name}_timestamp_seconds"
                yield GaugeMetricFamily(full, f"When {meaning}", value=at.timestamp())
        yield GaugeMetricFamily(
            "mt5_backup_receiving",
            "1 while the write-ahead log is being received",
            value=float(status.receiving),
        )


def serve_metrics(status_file: Path, port: int = PORT) -> WSGIServer:
    """Answer Prometheus on every address, from a thread of its own.

    Args:
        status_file: What the scheduler writes.
        port: 0 for a free one.
    """
    registry = CollectorRegistry()
    registry.register(Standing(status_file))
    server, _ = start_http_server(port, registry=registry)
    return server

"""Counting what is handed to a socket."""

from typing import TYPE_CHECKING

from mt5kit.domain.instants import now_ms
from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.messages import Message

if TYPE_CHECKING:
    from prometheus_client import Counter


class Tally:
    """Counts the messages of one session. Finding a label's counter costs more than counting."""

    def __init__(self, metrics: StreamMetrics) -> None:
        self._metrics = metrics
        self._counters: dict[str, Counter] = {}

    def handed(self, message: Message) -> None:
        """Count one message, and its age if it tells of a change."""
        counter = self._counters.get(message.type)
        if counter is None:
            counter = self._counters[message.type] = self._metrics.sent.labels(message.type)
        counter.inc()
        if message.seen_ms is not None:
            self._metrics.delivery.observe(max(0, now_ms() - message.seen_ms) / 1000)

"""What is measured of the request log."""

from prometheus_client import CollectorRegistry, Counter


class RequestLogMetrics:
    """Metric objects of one application, in its own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.dropped = Counter(
            "api_request_log_dropped_total",
            "Answered requests that the log has lost",
            # full: too many waited; refused: Postgres took none of its values; closing: time ran
            # out at the end.
            ("reason",),
            registry=registry,
        )
        for reason in ("full", "refused", "closing"):
            self.dropped.labels(reason)

"""Structured logs: one JSON object a line, rendered once."""

import logging
from typing import TextIO

import orjson
import structlog


def configure_logs(stream: TextIO, *, level: int = logging.INFO) -> None:
    """Send our events and the libraries' to `stream` as JSON lines.

    Call it once, where a process starts. Nothing sensitive is filtered here: secrets are of
    type `Secret`, which prints as stars, and access logs carry no query strings.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
        )
    )
    # Their INFO lines carry full URLs.
    for chatty in ("httpx", "httpcore", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.basicConfig(handlers=[handler], level=level, force=True)


def _dumps(event: object, **_options: object) -> str:
    return orjson.dumps(event, default=str).decode()

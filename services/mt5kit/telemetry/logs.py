"""Structured logs: one JSON object a line, rendered once."""

import logging
import re
from typing import TextIO

import orjson
import structlog

_TOKEN = re.compile(r"""((?:ticket|token)["']?[=:]\s*["']?)[^&\s"']+""")


def configure_logs(stream: TextIO, *, level: int = logging.INFO) -> None:
    """Send our events and the libraries' to `stream` as JSON lines.

    Call it once, where a process starts. Secrets are of type `Secret`, which does not show itself,
    and our access log has no query strings; what libraries log of URLs loses its tokens here.
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
            hide_tokens,
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
                hide_tokens,
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
        )
    )
    # Their INFO lines carry full URLs.
    for chatty in ("httpx", "httpcore", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.basicConfig(handlers=[handler], level=level, force=True)


def hide_tokens(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Take tickets and tokens out of whatever text a library logs, URLs above all."""
    for key, value in event.items():
        if isinstance(value, str) and ("ticket" in value or "token" in value):
            event[key] = _TOKEN.sub(r"\1…", value)
    return event


def _dumps(event: object, **_options: object) -> str:
    return orjson.dumps(event, default=str).decode()

"""Structured logs: one JSON object a line, rendered once."""

import datetime as dt
import logging
import re
import threading
from collections.abc import Mapping
from typing import TextIO

import orjson
import structlog

_TOKEN = re.compile(r"""((?:ticket|token)["']?[=:]\s*["']?)[^&\s"']+""")


class LineLoggers:
    """Makes structlog's loggers, and writes lines that need none.

    Args:
        stream: Where the lines go.
        level: Lines below it are not written.
    """

    def __init__(self, stream: TextIO, level: int) -> None:
        self._stream = stream
        self._informs = level <= logging.INFO
        self._lock = threading.Lock()

    def __call__(self, *_names: object) -> "LineLoggers":
        """The logger of a module: they are all one."""
        return self

    def msg(self, line: str) -> None:
        """Write a rendered line, whole even when several threads write."""
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    log = debug = info = warn = warning = error = critical = fatal = failure = exception = msg

    def inform(self, event: Mapping[str, object]) -> None:
        """Write an INFO line of plain values that hold no secret, as the processors would."""
        if self._informs:
            now = dt.datetime.now(dt.UTC).isoformat()
            # An ISO instant of UTC ends in +00:00.
            line = {**event, "level": "info", "timestamp": now[:-6] + "Z"}
            self.msg(orjson.dumps(line).decode())


def line_loggers() -> LineLoggers | None:
    """What `configure_logs` has set up in this process; None where it was not called."""
    factory = structlog.get_config()["logger_factory"]
    return factory if isinstance(factory, LineLoggers) else None


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
        logger_factory=LineLoggers(stream, level),
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

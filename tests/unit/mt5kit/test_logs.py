"""What libraries log of URLs loses its tokens."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from mt5kit.telemetry.logs import configure_logs


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs(stream)
    yield stream
    structlog.reset_defaults()
    logging.basicConfig(handlers=[], force=True)


@pytest.mark.parametrize(
    "text",
    [
        "GET /console/login?token=s3cr3t&x=1 not found",
        '"WebSocket /ws/account/a?ticket=s3cr3t" [accepted]',
        '{"type": "auth", "ticket": "s3cr3t"}',
    ],
)
def test_tokens_are_taken_out(log: io.StringIO, text: str) -> None:
    logging.getLogger("some.library").warning("%s", text)
    structlog.get_logger("ours").warning("event", url=text)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert len(lines) == 2
    assert "s3cr3t" not in log.getvalue()
    assert all("…" in line.get("url", line["event"]) for line in lines)


def test_other_text_stays(log: io.StringIO) -> None:
    structlog.get_logger("ours").info("tickets renewed", count=3)
    [line] = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (line["event"], line["count"]) == ("tickets renewed", 3)

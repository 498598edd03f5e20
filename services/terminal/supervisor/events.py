"""What happens, as one JSON object a line on standard output."""

from __future__ import annotations

import json
import sys
import threading
from datetime import datetime, timezone

_LOCK = threading.Lock()


def iso(epoch_s: float) -> str:
    """A UTC instant as ISO 8601 with milliseconds."""
    moment = datetime.fromtimestamp(epoch_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def tell(event: str, level: str = "info", **facts: object) -> None:
    """Write one event; `facts` are plain values and hold no secret."""
    now = iso(datetime.now(timezone.utc).timestamp())
    line = json.dumps({"event": event, **facts, "level": level, "timestamp": now})
    with _LOCK:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

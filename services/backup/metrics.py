"""How the backups stand, for Prometheus."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from backup.status import Status

PORT: Final = 9188
_TIMES: Final = {
    "looked": ("last_look", "the scheduler looked last"),
    "full": ("last_full", "the newest full backup of Postgres ended"),
    "snapshot": ("last_snapshot", "the newest snapshot of Redis was made"),
    "copied": ("last_copy", "the second place was last brought up to date"),
}


def exposed(status: Status | None) -> str:
    """The metrics in Prometheus' text format; what has never been has no sample."""
    if status is None:
        return ""
    lines = []
    for field, (name, meaning) in _TIMES.items():
        at = getattr(status, field)
        if at is not None:
            full = f"mt5_backup_{name}_timestamp_seconds"
            lines += [f"# HELP {full} When {meaning}", f"# TYPE {full} gauge"]
            lines.append(f"{full} {at.timestamp():.3f}")
    name = "mt5_backup_receiving"
    lines += [f"# HELP {name} 1 while the write-ahead log is being received"]
    lines += [f"# TYPE {name} gauge", f"{name} {int(status.receiving)}"]
    return "\n".join(lines) + "\n"


def serve_metrics(status_file: Path, port: int = PORT) -> ThreadingHTTPServer:
    """Answer `/metrics` on every address, from a thread of its own.

    Args:
        status_file: What the scheduler writes.
        port: 0 for a free one.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/metrics"
            body = exposed(Status.read(status_file)).encode() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are nothing to log."""

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server

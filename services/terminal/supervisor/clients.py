"""Who is connected to a port, read from the kernel's tables."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from terminal.supervisor.processes import PROC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ESTABLISHED = "01"


class Clients:
    """Counts connections to ports, without those that the supervisor itself has made.

    A connection that its client has closed is none, even while a frozen server has not noticed.

    Args:
        proc: Where the kernel's tables are.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._own: set[int] = set()

    def count(self, port: int) -> int:
        """How many clients are connected to a local port."""
        with self._lock:
            before = set(self._own)
        peers = list(self._peers(port))
        with self._lock:
            own = before | self._own
        return sum(peer not in own for peer in peers)

    @contextmanager
    def uncounted(self) -> Iterator[socket.socket]:
        """A socket, not yet connected, that is never counted."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as mine:
            mine.bind(("127.0.0.1", 0))
            port = mine.getsockname()[1]
            with self._lock:
                self._own.add(port)
            try:
                yield mine
            finally:
                mine.close()
                with self._lock:
                    self._own.discard(port)

    def _peers(self, port: int) -> Iterator[int]:
        """Ports at the other ends of the connections to a local port."""
        local = f"{port:04X}"
        for name in ("tcp", "tcp6"):
            table = self._proc / "net" / name
            # A machine without IPv6 has no such table.
            rows = table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []
            for row in rows:
                _, here, there, state = row.split()[:4]
                if state == _ESTABLISHED and here.rpartition(":")[2] == local:
                    yield int(there.rpartition(":")[2], 16)

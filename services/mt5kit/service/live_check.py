"""Docker's health check of a Python service: does its event loop answer?

A file of its own that imports nothing but sockets: it starts every few seconds in every container.
"""

import os
import socket
import sys

HOST = "127.0.0.1"
PATIENCE_S = 4.0


def answers(port: int, patience_s: float = PATIENCE_S) -> bool:
    """Whether `GET /health/live` on this machine is answered with 200.

    Args:
        port: Where the service listens.
        patience_s: How long each step may take.
    """
    try:
        with socket.create_connection((HOST, port), patience_s) as connection:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: health\r\n\r\n")
            return connection.recv(64).split(b" ", 2)[1:2] == [b"200"]
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not answers(int(os.environ.get("PORT", "8000"))))

"""One replica of a pool as a process of its own, to be stopped, killed and paused."""

import json
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, ClassVar

from local_stack.embedded_process import EmbeddedServer

HOST = "127.0.0.1"
# Above what services are given by custom, below what systems give to outgoing connections.
FIRST_PORT, LAST_PORT = 15_000, 32_000
PROBE_TIMEOUT_S = 5.0


def free_port() -> int:
    """A port nobody listens on, which no outgoing connection will be given either.

    A replica has to know its port before it starts, and to have the same one again afterwards.
    """
    ports = random.SystemRandom()
    while True:
        port = ports.randint(FIRST_PORT, LAST_PORT)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


class Replica(EmbeddedServer):
    """`python -m api_pool.main`; a subclass says what else.

    Args:
        name: Its instance id.
        data_dir: For its logs: one file for each start.
        environment: Its settings, without those of its own address.
    """

    title = "An API replica"
    module: ClassVar[str] = "api_pool.main"
    end_signal = signal.SIGTERM

    def __init__(self, name: str, data_dir: Path, environment: Mapping[str, str]) -> None:
        super().__init__(data_dir)
        self.name = name
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.paused = False
        self.listed = False
        self._environment = {
            **environment,
            "INSTANCE_ID": name,
            "HOST": HOST,
            "PORT": str(self.port),
            "INTERNAL_URL": self.url,
        }

    def kill(self) -> None:
        """Kill -9: nothing is handed over."""
        self._signal(signal.SIGKILL)
        self.stop()

    def pause(self) -> None:
        """Stop all its threads: connections stand, nothing answers."""
        self._signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """Let it go on, as if no time had passed."""
        self._signal(signal.SIGCONT)
        self.paused = False

    def start(self) -> None:
        """Start it, wait until it answers, and put it on the list of those to be sent to."""
        super().start()
        self.listed = True

    def stop(self) -> None:
        """Take it off the list, end it by SIGTERM and wait until it has ended."""
        self.listed = False
        super().stop()
        self.paused = False

    def ready(self) -> dict[str, Any] | None:
        """What `/health/ready` says; None while it does not answer, or not with 200."""
        connection = HTTPConnection(HOST, self.port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", "/health/ready")
            answer = connection.getresponse()
            return dict(json.loads(answer.read())) if answer.status == HTTPStatus.OK else None
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def logs(self) -> str:
        """Everything it has logged, oldest first, over all its starts."""
        files = sorted(self.data_dir.glob("server.*.log"))
        return "".join(each.read_text(errors="replace") for each in [*files, self.log_file])

    def _prepare(self) -> None:
        if self.log_file.exists():
            starts = len(list(self.data_dir.glob("server.*.log")))
            self.log_file.rename(self.data_dir / f"server.{starts:03d}.log")

    def _command(self) -> list[str]:
        # `env` becomes the program, so the process that is signalled is the replica itself.
        settings = [f"{name}={value}" for name, value in self._environment.items()]
        return ["/usr/bin/env", *settings, sys.executable, "-m", self.module]

    def _is_ready(self) -> bool:
        return self.ready() is not None

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is None:
            raise RuntimeError(f"{self.name} does not run")
        os.kill(self.pid, number)


class StreamReplica(Replica):
    """`python -m websocket_pool.main`. `ws_url` is where its sockets are opened."""

    title = "A WebSocket replica"
    module = "websocket_pool.main"

    @property
    def ws_url(self) -> str:
        """Base of `/ws/...`."""
        return f"ws://{HOST}:{self.port}"

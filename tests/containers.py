"""Simulated terminals in containers of their own, as a Swarm has them: each with its supervisor.

Each container has an address of its own, so that ports are the same everywhere; the broker behind
them all is one more process.
"""

import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster_plan import CONTROL_KEY, SERVER, Contained
from tests.replica import free_port

from local_stack.demo import write_private
from local_stack.embedded_process import EmbeddedServer
from local_stack.simulator import PlacedTerminal, Simulator

FIRST_PORT, SUPERVISOR_PORT = 8001, 8100
# Longer than any test waits for clients to leave.
DRAIN_S = 600


class Container(EmbeddedServer):
    """A supervisor and its terminals.

    Args:
        data_dir: For its log and its files.
        contained: Its name, and its terminals.
        address: Its own.
        broker: Where the broker is, as `NAME=HOST:PORT`.
        login_seconds: What a login takes.
    """

    title = "A container of terminals"
    # At once; SIGTERM lets clients leave first.
    end_signal = signal.SIGINT

    def __init__(
        self,
        data_dir: Path,
        contained: Contained,
        address: str,
        broker: str,
        login_seconds: float,
    ) -> None:
        super().__init__(data_dir)
        self.contained = contained
        self.address = address
        self._broker = broker
        self._login_seconds = login_seconds
        self._ready_file = self.data_dir / "ready.json"
        self._key_file = self.data_dir / "supervisor.key"

    def terminals(self) -> list[PlacedTerminal]:
        """Its terminals, by their ids."""
        ids = self.contained.terminal_ids
        return [
            PlacedTerminal(one, self.contained.role, self.address, FIRST_PORT + n)
            for n, one in enumerate(ids)
        ]

    def terminate(self) -> None:
        """What a Swarm does to a container that it stops; returns at once."""
        if self.pid is None:
            raise RuntimeError(f"{self.contained.name} does not run")
        os.kill(self.pid, signal.SIGTERM)

    @property
    def said(self) -> str:
        """Its log since its last start."""
        return self.log_file.read_text(errors="replace")

    def _prepare(self) -> None:
        self._ready_file.unlink(missing_ok=True)
        write_private(self._key_file, CONTROL_KEY.encode())

    def _command(self) -> list[str]:
        options = {
            "broker": self._broker,
            "host": self.address,
            "terminals": len(self.contained.terminal_ids),
            "port-base": FIRST_PORT,
            "control-port": SUPERVISOR_PORT,
            "key-file": self._key_file,
            "ready-file": self._ready_file,
            "login-seconds": self._login_seconds,
            "drain-seconds": DRAIN_S,
        }
        flat = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [sys.executable, "-m", "terminal_sim", "serve", *flat]

    def _is_ready(self) -> bool:
        return self._ready_file.exists()


class Containers(Simulator):
    """The broker, and the containers.

    Args:
        data_dir: For all their files.
        scenario: Of the broker, as JSON.
        contained: What there is.
        login_seconds: What a login takes.

    Attributes:
        containers: By name.
    """

    def __init__(
        self,
        data_dir: Path,
        scenario: bytes,
        contained: Sequence[Contained],
        login_seconds: float,
    ) -> None:
        super().__init__(data_dir, scenario, CONTROL_KEY, names=())
        self._broker_port = free_port()
        # Of this test run alone, whatever else runs on this machine.
        chance = random.SystemRandom()
        network = f"127.{chance.randint(1, 254)}.{chance.randint(1, 254)}"
        self.containers: Mapping[str, Container] = {
            one.name: Container(
                data_dir / one.name,
                one,
                f"{network}.{n}",
                f"{SERVER}=127.0.0.1:{self._broker_port}",
                login_seconds,
            )
            for n, one in enumerate(contained, 1)
        }

    def start(self) -> None:
        """Start the broker, then all containers at once."""
        super().start()
        with ThreadPoolExecutor(len(self.containers)) as pool:
            for started in [pool.submit(each.start) for each in self.containers.values()]:
                started.result()

    def stop(self) -> None:
        """End all containers, then the broker."""
        for each in self.containers.values():
            each.stop()
        super().stop()

    def terminals(self) -> tuple[PlacedTerminal, ...]:
        """Every terminal under its name and role."""
        return tuple(one for each in self.containers.values() for one in each.terminals())

    def _command(self) -> list[str]:
        return [*super()._command(), "--broker-port", str(self._broker_port)]

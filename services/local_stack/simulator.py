"""The simulated terminals: one supervisor process, as many terminals as asked for."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from local_stack.demo import write_private
from local_stack.embedded_process import EmbeddedServer
from mt5kit.terminal.address import TerminalAddress

# Two to share by turns, five to stream from, one for each of the 15 symbols (design §7).
ROLES: Final = (("api", 2), ("stream", 5), ("market", 15))
LOCAL_NAMES: Final = tuple(
    (f"mt5-{role}-{slot}", role) for role, count in ROLES for slot in range(1, count + 1)
)
# As the real one: a login freezes its terminal for this long.
LOGIN_SECONDS: Final = 1.5


class RunningTerminal(msgspec.Struct, frozen=True):
    """A terminal that listens."""

    n: int
    host: str
    port: int


class Ready(msgspec.Struct, frozen=True):
    """What the simulator writes when all its terminals listen."""

    control_url: str
    terminals: tuple[RunningTerminal, ...]


class PlacedTerminal(msgspec.Struct, frozen=True):
    """A terminal and what it is for."""

    terminal_id: str
    role: str
    host: str
    port: int

    @property
    def address(self) -> TerminalAddress:
        """Where links find it."""
        return TerminalAddress(self.terminal_id, self.host, self.port)


class Simulator(EmbeddedServer):
    """`python -m terminal_sim serve` with the demo's scenario.

    Args:
        data_dir: For the scenario, the key, the log and the ready file.
        scenario: The scenario, as JSON.
        key: Of the supervisor's API.
        names: Id and role of each terminal.
        login_seconds: What a login takes.
    """

    title = "The terminal simulator"
    end_signal = signal.SIGTERM

    def __init__(
        self,
        data_dir: Path,
        scenario: bytes,
        key: str,
        *,
        names: Sequence[tuple[str, str]] = LOCAL_NAMES,
        login_seconds: float = LOGIN_SECONDS,
    ) -> None:
        super().__init__(data_dir)
        self._scenario = scenario
        self._key = key
        self._names = tuple(names)
        self._login_seconds = login_seconds
        self._ready_file = self.data_dir / "ready.json"
        self._scenario_file = self.data_dir / "scenario.json"
        self.key_file = self.data_dir / "supervisor.key"
        self._journals = self.data_dir / "brokers"

    def ready(self) -> Ready:
        """Where everything listens; after `start`."""
        return msgspec.json.decode(self._ready_file.read_bytes(), type=Ready)

    def terminals(self) -> tuple[PlacedTerminal, ...]:
        """Every terminal under its name and role, in the order of their numbers."""
        running = sorted(self.ready().terminals, key=lambda terminal: terminal.n)
        return tuple(
            PlacedTerminal(name, role, terminal.host, terminal.port)
            for (name, role), terminal in zip(self._names, running, strict=True)
        )

    def _prepare(self) -> None:
        self._ready_file.unlink(missing_ok=True)
        write_private(self._scenario_file, self._scenario)
        write_private(self.key_file, self._key.encode())
        self._journals.mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> list[str]:
        options = {
            "scenario": self._scenario_file,
            "key-file": self.key_file,
            "data-dir": self._journals,
            "ready-file": self._ready_file,
            "host": "127.0.0.1",
            "terminals": len(self._names),
            "login-seconds": self._login_seconds,
            "port-base": 0,
            "control-port": 0,
        }
        flat = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [sys.executable, "-m", "terminal_sim", "serve", *flat]

    def _is_ready(self) -> bool:
        return self._ready_file.exists()

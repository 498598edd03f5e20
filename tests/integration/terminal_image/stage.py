"""A container's places in temporary directories, with stand-ins for Wine and what runs in it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import rpyc
from rpyc.core.service import ClassicClient
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]
STANDINS = Path(__file__).parent / "standins"
KEY = "key-of-a-supervisor-test"
# Another Python to run the supervisor with, such as the 3.9 it is written for.
PYTHON = os.environ.get("MT5_SUPERVISOR_PYTHON", sys.executable)
FREEZE = "import ctypes; ctypes.PyDLL(None).usleep({} * 1000)"
QUICK = {
    "MT5_PROBE_S": "0.1",
    "MT5_ANSWER_S": "2",
    "MT5_SETUP_RETRY_S": "0.2",
    "MT5_QUIET_S": "0.3",
    "MT5_RELEASE_S": "0",
}


class Stage:
    """Where one supervisor runs.

    Args:
        directory: Of the test; taken away with it.
        memory: A directory on a tmpfs.
        terminals: How many.
    """

    def __init__(self, directory: Path, memory: Path, terminals: int) -> None:
        self.directory = directory
        self.home = directory / "config"
        self.prefix = self.home / ".wine"
        self.memory = memory
        self.image = directory / "image"
        self.terminals = terminals
        self.port_base, self.control_port = free_ports(terminals)
        self.process: subprocess.Popen[str] | None = None
        self.output: list[str] = []
        self._lay_out()
        site = partial(SimpleHTTPRequestHandler, directory=str(directory / "site"))
        self._site = ThreadingHTTPServer(("127.0.0.1", 0), site)
        threading.Thread(target=self._site.serve_forever, args=(0.05,), daemon=True).start()

    def _lay_out(self) -> None:
        for name in ("config", "bin", "module", "plans", "site", "image/installers"):
            (self.directory / name).mkdir(parents=True)
        for name, source in {"wine": "wine", "wineserver": "wine", "Xvfb": "Xvfb"}.items():
            script = self.directory / "bin" / name
            text = (STANDINS / f"{source}.py").read_text()
            script.write_text(f"#!{sys.executable}\n{text}")
            script.chmod(0o755)
        shutil.copy(STANDINS / "MetaTrader5.py", self.directory / "module")
        (self.image / "terminal").symlink_to(ROOT / "services" / "terminal")
        (self.image / "wheels").mkdir()
        for name, text in {
            "wine-mono.msi": "mono",
            "python.exe": "python",
            "SHA256SUMS": "0",
        }.items():
            (self.image / "installers" / name).write_text(text)
        (self.directory / "site" / "mt5setup.exe").write_text("mt5setup")
        (self.directory / "key").write_text(KEY)

    def take_over(self, volume: Path) -> None:
        """Begin with a volume on which the first boot is done."""
        shutil.copytree(volume, self.home, symlinks=True, dirs_exist_ok=True)

    # -- the supervisor ---------------------------------------------------------------------------

    def environment(self, **changes: object) -> dict[str, str]:
        given = {
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "services"),
            "TERMINALS": self.terminals,
            "SUPERVISOR_KEY_FILE": self.directory / "key",
            "SUPERVISOR_PORT": self.control_port,
            "MT5_HOST": "127.0.0.1",
            "MT5_PORT_BASE": self.port_base,
            "MT5_HOME": self.home,
            "WINEPREFIX": self.prefix,
            "MT5_RUN_DIR": self.memory,
            "MT5_IMAGE_DIR": self.image,
            "MT5_SETUP_URL": f"http://127.0.0.1:{self._site.server_port}/mt5setup.exe",
            **QUICK,
            **changes,
        }
        return {name: str(value) for name, value in given.items()}

    def start(self, **changes: object) -> None:
        """Start it; its own temporary directory is that of a container that begins."""
        self.process = subprocess.Popen(
            [PYTHON, "-m", "terminal.supervisor"],
            env=self.environment(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            self.output.extend(process.stdout)

    def command(self, *arguments: str, **changes: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PYTHON, "-m", "terminal.supervisor", *arguments],
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            check=False,
        )

    def signal(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def exit_code(self) -> int:
        assert self.process is not None
        code = self.process.wait(60)
        self._reader.join()
        return code

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.exit_code()
        for process in self.processes(""):
            process.kill()
        self._site.shutdown()
        self._site.server_close()

    # -- what can be seen -------------------------------------------------------------------------

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for line in self.output if (event := json.loads(line))["event"] == name]

    def ask(self, method: str, path: str, key: str = KEY, **more: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.control_port}{path}"
        return httpx.request(method, url, headers={"X-Supervisor-Key": key}, timeout=60, **more)

    def rows(self) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = self.ask("GET", "/terminals").json()["terminals"]
        except httpx.TransportError:
            return []
        return rows

    def row(self, number: int = 1) -> dict[str, Any]:
        return next((row for row in self.rows() if row["n"] == number), {"state": "away"})

    def running(self) -> None:
        """Wait until every terminal runs."""
        wait_for(self._run, lambda: f"the terminals run: {self.output}")

    def _run(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output
        rows = self.rows()
        return len(rows) == self.terminals and all(row["state"] == "running" for row in rows)

    def processes(self, word: str) -> list[psutil.Process]:
        """Processes of this stage with a word among their arguments."""
        found = []
        for process in psutil.process_iter():
            try:
                arguments = process.cmdline()
                if any(each.endswith(word) for each in arguments) and self._mine(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _mine(self, process: psutil.Process) -> bool:
        prefix = process.environ().get("WINEPREFIX") == str(self.prefix)
        return prefix and process.pid != (self.process.pid if self.process else 0)

    def ran(self) -> list[dict[str, Any]]:
        """Everything that was started: arguments and environment."""
        path = self.directory / "ran"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def plan(self, program: str, what: str | None) -> None:
        path = self.directory / "plans" / program
        if what is None:
            path.unlink()
        else:
            path.write_text(what)

    def config(self, number: int = 1) -> Path:
        return self.memory / str(number) / "config"


def free_ports(count: int) -> tuple[int, int]:
    """A first port with `count` free ones from there on, and another one."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            base = first.getsockname()[1]
        ports = range(base, base + count + 1)
        if base + count < 65000 and all(_free(port) for port in ports):
            return base, base + count


def _free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def staged(directory: Path, terminals: int) -> Iterator[Stage]:
    """A stage, with nothing left of it afterwards."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="mt5-") as memory:
        stage = Stage(directory, Path(memory), terminals)
        try:
            yield stage
        finally:
            stage.close()


@contextmanager
def connected(stage: Stage, number: int = 1, timeout_s: float = 30) -> Iterator[Any]:
    """A client's connection to a terminal."""
    port = stage.port_base + number - 1
    config = {"sync_request_timeout": timeout_s}
    link = rpyc.connect("127.0.0.1", port, service=ClassicClient, config=config)
    try:
        yield link
    finally:
        link.close()


@contextmanager
def frozen(stage: Stage, milliseconds: int) -> Iterator[None]:
    """The interpreter of the first terminal is held, by a call that takes so long."""
    with connected(stage) as link:
        rpyc.async_(link.root.execute)(FREEZE.format(milliseconds))
        yield

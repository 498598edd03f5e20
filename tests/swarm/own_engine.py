"""A Docker Engine of the tests' own, so that it may be restarted and lied to.

It has its own data root and socket, and its resolver is hostile: see `outside.py`. What it keeps
between two runs are images.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.swarm.docker_cli import Docker
from tests.waiting import wait_for

CACHE = Path(__file__).parents[2] / ".cache/swarm"
STOP_S = 120.0


class EngineUnavailable(RuntimeError):
    """No engine can be started here; says what is missing."""


class OwnEngine:
    """A dockerd that we start, restart and stop.

    Args:
        directory: For its data, its log and its sockets.
        dns: The resolver that containers' unknown names are forwarded to; None for the machine's.
    """

    def __init__(self, directory: Path, dns: str | None = None) -> None:
        self._directory = directory.resolve()
        # The path of a Unix socket may have 107 characters, and a clone may be deep.
        self._run = Path(f"/run/mt5-swarm-{os.getpid()}")
        self._dns = dns
        self._process: subprocess.Popen[bytes] | None = None
        self.docker = Docker(f"unix://{self._run}/docker.sock")

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            EngineUnavailable: There is no dockerd here, we are not root, or another engine has
                containers here: both would write the same rules of the firewall.
            AssertionError: It does not answer; the end of its log is in the message.
        """
        dockerd = shutil.which("dockerd") or "/usr/sbin/dockerd"
        if os.geteuid() != 0 or not Path(dockerd).exists():
            raise EngineUnavailable("needs root and dockerd: apt-get install docker.io")
        if busy := _busy(Docker()):
            raise EngineUnavailable(f"another engine runs here and {busy}: stop it first")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._run.mkdir(mode=0o700, exist_ok=True)
        options = {
            "data-root": self._directory / "docker",
            "exec-root": self._run / "exec",
            "pidfile": self._run / "dockerd.pid",
            "host": f"unix://{self._run}/docker.sock",
        }
        if self._dns is not None:
            options["dns"] = self._dns
        with (self._directory / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [dockerd, *(f"--{name}={value}" for name, value in options.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C for the tests is none for the engine: we stop it.
                start_new_session=True,
            )
        self._wait(self.docker.answers, "the engine does not answer")

    def stop(self) -> None:
        """Stop it, and with it every container."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self, dns: str | None = None) -> None:
        """Stop it and start it again: what a restart of the machine's service does."""
        self.stop()
        self._dns = dns or self._dns
        self.start()

    def remove(self) -> None:
        """Forget the sockets; the data root stays, with its images."""
        shutil.rmtree(self._run, ignore_errors=True)

    def forget(self) -> None:
        """Remove everything but images: also what a run that was cut off may have left."""
        self.docker("swarm", "leave", "--force", check=False)
        if containers := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", *containers)
        if volumes := self.docker("volume", "ls", "--quiet").split():
            self.docker("volume", "rm", "--force", *volumes)
        self.docker("network", "prune", "--force")

    def _wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        process = self._process

        def answered() -> bool:
            if process is not None and process.poll() is not None:
                time.sleep(0.1)
                raise AssertionError(f"dockerd ended with {process.returncode}\n{self._said()}")
            return condition()

        wait_for(answered, lambda: f"{otherwise}\n{self._said()}")

    def _said(self) -> str:
        log = self._directory / "dockerd.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""


def _busy(other: Docker) -> str:
    """What an engine that runs already would lose by ours; empty for nothing."""
    if not other.answers():
        return ""
    told = other.json("info", "--format", "{{json .}}")
    if told["Swarm"]["LocalNodeState"] != "inactive":
        return "belongs to a swarm"
    return f"has {told['ContainersRunning']} containers" if told["ContainersRunning"] else ""

"""nginx in a container of the image that is deployed, with stand-ins behind it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.swarm.docker_cli import CLIENT, Docker, DockerFailed
from tests.swarm.images import build_image
from tests.swarm.nginx.client import Answer, exchange, request
from tests.waiting import wait_for

from swarm_stack.certificates import self_signed

HERE = Path(__file__).parent
IMAGE = "mt5-nginx:test"
PYTHON = "python:3.13-slim-trixie"
STACK_SUBNET = "10.77.2.0/24"
# The stack, which is deployed beside it, wants its own.
SUBNETS = [f"10.77.{third}.0/24" for third in range(130, 140)]


class Container:
    """A container of ours."""

    def __init__(self, docker: Docker, name: str) -> None:
        self._docker = docker
        self.name = name

    def logs(self) -> str:
        """All it has written, to either stream."""
        done = subprocess.run(
            [CLIENT, "logs", self.name],
            env=self._docker.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )
        return done.stdout.decode()

    def lines(self) -> list[dict[str, Any]]:
        """What it has written that is JSON."""
        return [json.loads(line) for line in self.logs().splitlines() if line.startswith("{")]

    def state(self) -> dict[str, Any]:
        """See `docker inspect`."""
        found: dict[str, Any] = self._docker.json("inspect", "-f", "{{json .State}}", self.name)
        return found

    def run(self, *command: str) -> str:
        """What a command in it prints.

        Raises:
            DockerFailed: It failed.
        """
        return self._docker("exec", self.name, *command)

    def send(self, signal: str) -> None:
        """Send its first process a signal."""
        self._docker("kill", "--signal", signal, self.name)

    def remove(self) -> None:
        """Kill it."""
        self._docker("rm", "--force", "--volumes", self.name)


class StandIn(Container):
    """Something behind nginx, or beside it."""

    def got(self, mark: str) -> list[dict[str, Any]]:
        """The requests it got whose target holds the mark."""
        return [line for line in self.lines() if mark in line.get("target", "")]


class Nginx(Container):
    """nginx, reached through ports of this machine."""

    def port(self, inside: int) -> tuple[str, int]:
        """Where a port of it is reached from here."""
        host, _, port = self._docker("port", self.name, f"{inside}/tcp").partition(":")
        return host, int(port)

    def ready(self) -> "Nginx":
        """Itself, once it answers.

        Raises:
            AssertionError: It has ended; says what it wrote.
        """
        wait_for(self._answers, lambda: f"{self.name} does not answer: {self.logs()}")
        self.https = self.port(8443)
        return self

    def ask(self, target: str, method: str = "GET", **more: Any) -> Answer:
        """The answer to a request over TLS."""
        return exchange(self.https, request(target, method, **more), method=method)

    def asked(self, target: str, **more: Any) -> dict[str, Any]:
        """What a stand-in says that it got."""
        answer = self.ask(target, **more)
        assert answer.status == 200, answer
        return answer.json()

    def _answers(self) -> bool:
        assert self.state()["Status"] != "exited", self.logs()
        try:
            self.run("mt5-nginx-health")
        except DockerFailed:
            return False
        return True


class Site:
    """A network of the engine, and what was started in it.

    Args:
        docker: The engine.
        directory: For files that containers mount; everybody has to be able to enter it.
    """

    def __init__(self, docker: Docker, directory: Path) -> None:
        self.docker = docker
        self._directory = directory
        self._mark = f"nginx-test-{uuid4().hex[:8]}"
        self._label = ("--label", f"mt5-swarm.test={self._mark}")
        self.subnet = ""

    def open(self) -> "Site":
        """Make the image, the certificate and the networks."""
        build_image(self.docker, "services/nginx/Dockerfile", IMAGE)
        self.certify()
        self.subnet = self._make_network("services", SUBNETS)
        self._make_network("outside", [])
        return self

    def close(self) -> None:
        """Remove everything."""
        ours = ("--filter", self._label[1].join(("label=", "")))
        for container in self.docker.lines("ps", "--all", "--quiet", *ours):
            self.docker("rm", "--force", "--volumes", container)
        for network in self.docker.lines("network", "ls", "--quiet", *ours):
            self.docker("network", "rm", network)

    def stand_in(self, name: str, *aliases: str, **env: str) -> StandIn:
        """Start a stand-in under these names of the network, and wait until it listens."""
        started = self.start_python(name, "stand_in.py", "services", aliases, NAME=name, **env)
        wait_for(lambda: '"listening"' in started.logs(), f"{name} does not listen")
        return started

    def start_python(
        self, name: str, script: str, network: str, aliases: tuple[str, ...] = (), **env: str
    ) -> StandIn:
        """Start one of the scripts beside this one."""
        options = [part for alias in aliases for part in ("--network-alias", alias)]
        options += [part for key, value in env.items() for part in ("--env", f"{key}={value}")]
        options += ["--volume", f"{HERE / script}:/{script}:ro"]
        full = f"{self._mark}-{name}"
        self._run(full, network, *options, PYTHON, "python3", f"/{script}")
        return StandIn(self.docker, full)

    def crowd(self, nginx: Nginx, count: int, target: str, *headers: str) -> dict[str, Any]:
        """Let many clients at one address ask at once; see `crowd.py`."""
        script = ("--volume", f"{HERE / 'crowd.py'}:/crowd.py:ro")
        network = ("--network", f"{self._mark}-services")
        command = ("python3", "/crowd.py", nginx.name, str(count), target, *headers)
        told: dict[str, Any] = self.docker.json(
            "run", "--rm", *self._label, *network, *script, PYTHON, *command
        )
        return told

    def nginx(
        self,
        name: str,
        *options: str,
        dns: str = "127.0.0.53",
        outside: bool = False,
        certificate: str = "tls",
        change: Callable[[str], str] = str,
    ) -> Nginx:
        """Start nginx as the stack does, and wait until it answers.

        Args:
            name: Of its container.
            options: More for `docker create`.
            dns: The server that Docker asks for names which it does not know.
            outside: Whether it stands in the network outside too.
            certificate: The directory it has one from; made empty where it is not there.
            change: Makes its configuration of the committed one.
        """
        conf = self._directory / f"{name}.conf"
        text = Path("nginx.conf").read_text(encoding="utf-8").replace(STACK_SUBNET, self.subnet)
        conf.write_text(change(text), encoding="utf-8")
        full = f"{self._mark}-{name}"
        tls = self._directory / certificate
        tls.mkdir(exist_ok=True)
        volumes = (f"{conf}:/etc/nginx/nginx.conf:ro", f"{tls}:/etc/nginx/tls:ro")
        mounts = [part for volume in volumes for part in ("--volume", volume)]
        tmpfs = ("--tmpfs", "/tmp:mode=1777")
        hardened = ("--read-only", *tmpfs, "--cap-drop", "ALL")
        ports = [part for port in (8443, 8080) for part in ("--publish", f"127.0.0.1::{port}")]
        network = ("--network", f"{self._mark}-services", "--dns", dns)
        env = ("--env", f"SERVICES_SUBNET={self.subnet}", "--health-interval", "1s")
        self.docker(
            *("create", "--name", full, *self._label, *network, *mounts, *hardened, *ports),
            *(*env, *options, IMAGE),
        )
        if outside:
            self.docker("network", "connect", f"{self._mark}-outside", full)
        self.docker("start", full)
        return Nginx(self.docker, full).ready()

    def script(self, name: str, command: str) -> Path:
        """A shell script for a container to mount."""
        written = self._directory / f"{name}.sh"
        written.write_text(f"#!/bin/bash\n{command}\n", encoding="utf-8")
        written.chmod(0o755)
        return written

    def address(self, container: Container, network: str) -> str:
        """Its address in one of the networks."""
        each = self.docker.json(
            "inspect", "-f", "{{json .NetworkSettings.Networks}}", container.name
        )
        found: str = each[f"{self._mark}-{network}"]["IPAddress"]
        return found

    def _run(self, name: str, network: str, *rest: str) -> None:
        network = f"{self._mark}-{network}"
        self.docker("run", "--detach", "--name", name, *self._label, "--network", network, *rest)

    def certify(self, *parts: str, directory: str = "tls") -> str:
        """Make a certificate and put these parts of it, or both, where nginx has its own.

        Returns:
            What clients are to be shown, in PEM.
        """
        tls = self._directory / directory
        tls.mkdir(exist_ok=True)
        made = self_signed("swarm.test")
        contents = {"key": made.key, "certificate": made.chain}
        for part in parts or contents:
            fresh = tls / f".{part}.pem"
            fresh.write_bytes(contents[part])
            # The container's user is another than ours.
            fresh.chmod(0o644)
            fresh.rename(tls / f"{part}.pem")
        return made.chain.decode()

    def _make_network(self, name: str, subnets: list[str]) -> str:
        name = f"{self._mark}-{name}"
        for subnet in subnets or [""]:
            choice = ("--subnet", subnet) if subnet else ()
            try:
                self.docker("network", "create", *self._label, *choice, name)
            except DockerFailed as taken:
                if "overlaps" not in str(taken):
                    raise
            else:
                return subnet
        raise DockerFailed(f"none of {subnets} is free")

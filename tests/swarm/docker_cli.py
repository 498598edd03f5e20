"""The docker client as the tests use it."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLIENT = os.environ.get("DOCKER") or (
    # Debian's own builds with BuildKit; another one before it in the path may lack that part.
    "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker") or "docker"
)


class DockerFailed(RuntimeError):
    """A docker command ended with another code than 0."""


class Docker:
    """Runs docker commands against one engine.

    Args:
        host: As in `DOCKER_HOST`; None for docker's own default.
    """

    def __init__(self, host: str | None = None) -> None:
        self.host = host
        self.environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        if host is not None:
            self.environment["DOCKER_HOST"] = host

    def __call__(
        self,
        *arguments: str,
        check: bool = True,
        timeout: float = 120,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """What the command printed, stripped; standard error only where it fails.

        Raises:
            DockerFailed: It failed, and `check` is set.
        """
        done = subprocess.run(
            [CLIENT, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**self.environment, **(env or {})},
            cwd=cwd,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise DockerFailed(f"docker {' '.join(arguments)}: {said}")
        return done.stdout.decode(errors="replace").strip()

    def both(self, *arguments: str) -> str:
        """What the command wrote to standard output and standard error, in its order."""
        done = subprocess.run(
            [CLIENT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            check=False,
            timeout=120,
        )
        return done.stdout.decode(errors="replace")

    def import_root(self, root: Path, image: str, change: str) -> None:
        """Make an image of a root file system.

        Raises:
            DockerFailed: It failed.
        """
        with subprocess.Popen(
            ["/bin/tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE
        ) as tar:
            done = subprocess.run(
                [CLIENT, "import", "--change", change, "-", image],
                stdin=tar.stdout,
                capture_output=True,
                env=self.environment,
                check=False,
            )
        if done.returncode or tar.returncode:
            raise DockerFailed(f"docker import {image}: {done.stderr.decode()}")

    def json(self, *arguments: str) -> Any:
        """What the command printed, as JSON."""
        return json.loads(self(*arguments))

    def json_lines(self, *arguments: str) -> list[Any]:
        """What the command printed, as JSON by lines."""
        return [json.loads(line) for line in self.lines(*arguments)]

    def lines(self, *arguments: str) -> list[str]:
        """What the command printed, by lines."""
        return self(*arguments).splitlines()

    def answers(self) -> bool:
        """Whether an engine is there."""
        try:
            self("version", "--format", "{{.Server.Version}}", timeout=20)
        except (DockerFailed, OSError, subprocess.TimeoutExpired):
            return False
        return True

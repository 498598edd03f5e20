"""The Docker Engine, through its command line.

The command line and not the API's client: it has contexts, BuildKit and `stack deploy`, which the
API has not.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

# Everything but builds and waits is answered by the local engine.
PATIENCE_S: Final = 120.0
BUILD_S: Final = 3600.0
# Of what a build printed before it failed.
BUILD_LINES: Final = 25


class EngineFailed(Exception):
    """A docker command failed; the message is what docker said."""


class EngineMissing(EngineFailed):
    """No engine answers, or it is no manager of a swarm; the message says what to do."""


class Engine:
    """Runs docker commands.

    Args:
        client: The docker command; `DOCKER` in the environment or `docker`.
    """

    def __init__(self, client: str | None = None) -> None:
        self._client = client or os.environ.get("DOCKER") or "docker"

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
        both: bool = False,
    ) -> str:
        """What the command printed on its standard output, stripped.

        Args:
            arguments: Of docker.
            stdin: What it reads.
            env: More environment.
            timeout_s: After so long it has failed.
            both: Standard error besides: that of containers, for `logs`.

        Raises:
            EngineFailed: It ended with another code than 0, or not in time.
        """
        done = self._run(arguments, stdin, env, timeout_s)
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise EngineFailed(f"docker {' '.join(arguments[:2])}: {said}")
        printed = done.stdout + done.stderr if both else done.stdout
        return printed.decode(errors="replace").strip()

    def show(self, *arguments: str, env: Mapping[str, str] | None = None) -> int:
        """Run a command that prints for the person at the terminal; its exit code."""
        return subprocess.run(  # noqa: S603 - our own command, no shell
            [self._client, *arguments], env=self._environment(env), check=False
        ).returncode

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What a listing command says of each thing, from its JSON lines."""
        printed = self.run(*arguments, "--format", "{{json .}}")
        return [json.loads(line) for line in printed.splitlines()]

    def inspect(
        self, kind: str, names: Sequence[str], *, missing_ok: bool = False
    ) -> list[dict[str, Any]]:
        """Everything the engine knows of some services, tasks, secrets, ...; none for no names.

        Args:
            kind: Of things.
            names: Names or ids.
            missing_ok: Leave out what is not there: old tasks may go at any time.

        Raises:
            EngineFailed: One of them is not there.
        """
        if not names:
            return []
        command = ("inspect", "--type", kind, *names)
        # It prints what it finds also when it fails.
        printed = self._run(command).stdout if missing_ok else self.run(*command).encode()
        found: list[dict[str, Any]] = json.loads(printed)
        return found

    def build(self, dockerfile: Path, tag: str, options: Sequence[str] = ()) -> None:
        """Build an image from the root of the repository, which is the working directory.

        Raises:
            EngineFailed: It could not be built; says the end of what was printed.
        """
        command = ("build", "--file", str(dockerfile), "--tag", tag, *options, ".")
        try:
            self.run(*command, env={"DOCKER_BUILDKIT": "1"}, timeout_s=BUILD_S)
        except EngineFailed as failed:
            said = str(failed).splitlines()[-BUILD_LINES:]
            raise EngineFailed(f"{tag} could not be built:\n" + "\n".join(said)) from None

    def has_image(self, name: str) -> bool:
        """Whether this engine has an image."""
        return bool(self.run("images", "--quiet", name))

    def require_manager(self) -> None:
        """Make sure that an engine answers and manages a swarm.

        Raises:
            EngineMissing: Otherwise.
        """
        try:
            swarm = json.loads(self.run("info", "--format", "{{json .Swarm}}"))
        except EngineMissing:
            raise
        except EngineFailed as failed:
            raise EngineMissing(f"no Docker Engine answers here ({failed})") from None
        if swarm["LocalNodeState"] != "active":
            raise EngineMissing("this engine is in no swarm: docker swarm init")
        if not swarm["ControlAvailable"]:
            raise EngineMissing("this node is a worker: deploy from a manager of the swarm")

    def _run(
        self,
        arguments: Sequence[str],
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(  # noqa: S603 - our own command, no shell
                [self._client, *arguments],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                env=self._environment(env),
                check=False,
                timeout=timeout_s,
            )
        except FileNotFoundError:
            raise EngineMissing(
                f"{self._client} is not installed: apt-get install docker.io"
            ) from None
        except subprocess.TimeoutExpired:
            raise EngineFailed(
                f"docker {arguments[0]} was not done after {timeout_s:.0f} s"
            ) from None

    @staticmethod
    def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **(env or {})}

"""Things that run once inside the stack's networks, to their end: Swarm's own jobs."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from swarm_stack.engine import Engine
from swarm_stack.variables import NO_RESOLVER

PAUSE_S: Final = 0.5
ENDED: Final = frozenset({"complete", "failed", "rejected", "shutdown", "orphaned", "remove"})


class JobFailed(Exception):
    """It ended badly or not in time; the message is what it printed."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to run.

    Args:
        name: Of the job's service; must not be one of the stack's services.
        image: Of the container.
        arguments: Of its entrypoint.
        env: Its environment.
        networks: Full names.
        secrets: Full name of a secret by the file name in `/run/secrets`.
        volumes: Volume by the path where it is mounted.
        tmpfs: Paths of writable temporary directories.
        user: As in `docker run --user`.
        on_data_node: Whether it needs the volumes of the data node.
        dns: The resolver of names outside; by default, as in docker-stack.yml, they are unknown.
    """

    name: str
    image: str
    arguments: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    tmpfs: tuple[str, ...] = ("/tmp",)  # noqa: S108 - in its container
    user: str | None = None
    on_data_node: bool = False
    dns: str = NO_RESOLVER

    def options(self) -> list[str]:
        """Of `docker service create`."""
        options = ["--mode", "replicated-job", "--restart-condition", "none", "--init"]
        options += ["--read-only", "--cap-drop", "ALL", "--detach", "--name", self.name]
        # The image's check is of its service; a job ends by itself.
        options += ["--no-healthcheck"]
        options += ["--dns", self.dns]
        options += [part for item in self.env.items() for part in ("--env", "=".join(item))]
        options += [part for name in self.networks for part in ("--network", name)]
        for target, source in self.secrets.items():
            options += ["--secret", f"source={source},target={target}"]
        for target, source in self.volumes.items():
            options += ["--mount", f"type=volume,source={source},target={target}"]
        for target in self.tmpfs:
            options += ["--mount", f"type=tmpfs,target={target}"]
        if self.user is not None:
            options += ["--user", self.user]
        if self.on_data_node:
            options += ["--constraint", "node.labels.mt5.data == yes"]
        return options


def run_job(engine: Engine, job: Job, patience_s: float) -> str:
    """Run a job to its end; what it printed. Nothing of it stays behind.

    Raises:
        JobFailed: It ended with another code than 0, could not start, took too long, or one of
            that name is under way.
        EngineFailed: The swarm refuses it.
    """
    if under_way(engine, job.name):
        raise JobFailed(f"{job.name} is under way already: docker service logs -f {job.name}")
    _remove(engine, job.name)
    engine.run("service", "create", *job.options(), job.image, *job.arguments)
    try:
        deadline = time.monotonic() + patience_s
        while True:
            task, state, error = _state(engine, job.name)
            if state in ENDED:
                break
            if time.monotonic() > deadline:
                raise JobFailed(f"{job.name} was not done after {patience_s:.0f} s: {error}")
            time.sleep(PAUSE_S)
        # By the task: of a service the engine waits for one that never had a container.
        printed = engine.run("service", "logs", "--raw", task, both=True)
        if state != "complete":
            raise JobFailed("\n".join(part for part in (printed, error) if part) or state)
        return printed
    finally:
        _remove(engine, job.name)


def under_way(engine: Engine, name: str) -> bool:
    """Whether a job of that name has not come to its end."""
    there = any(row["Name"] == name for row in engine.rows("service", "ls"))
    return there and _state(engine, name)[1] not in ENDED


def _state(engine: Engine, name: str) -> tuple[str, str, str]:
    """(task, state, what is said of it)."""
    ids = engine.run("service", "ps", "--no-trunc", "--quiet", name).split()
    if not ids:
        return "", "new", "no task yet"
    status = engine.inspect("task", ids[:1])[0]["Status"]
    said = str(status.get("Err", "") or status.get("Message", ""))
    return ids[0], str(status["State"]), said


def _remove(engine: Engine, name: str) -> None:
    """Remove the service, and the containers that it leaves on this node, which hold volumes."""
    rows = engine.rows("service", "ls", "--filter", f"name={name}")
    if any(row["Name"] == name for row in rows):
        engine.run("service", "rm", name)
    label = f"label=com.docker.swarm.service.name={name}"
    if left := engine.run("ps", "--all", "--quiet", "--filter", label).split():
        engine.run("rm", "--force", "--volumes", *left)

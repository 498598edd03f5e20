"""What the swarm says of a stack's services and their tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from swarm_stack.engine import Engine, EngineFailed

# An update that goes on by itself; the others have come to an end or never were.
UPDATING: Final = frozenset({"updating", "rollback_started"})
# The new specification did not work out, and the old one stands again or soon will.
ROLLED_BACK: Final = frozenset({"rollback_started", "rollback_completed", "rollback_paused"})
# What the engine fills in when it shows a service, and not when it shows a task of it.
FILLED_IN: Final[Mapping[str, object]] = {"StopGracePeriod": 10_000_000_000, "DNSConfig": {}}
FAILED: Final = frozenset({"failed", "rejected"})


_NONE: Final = object()


@dataclass(frozen=True, slots=True)
class Task:
    """A task: one container, or one that was; `container` is empty where it never came to one."""

    task_id: str
    slot: int
    node: str
    desired: str
    state: str
    since: str
    error: str
    current: bool
    container: str

    @property
    def wanted(self) -> bool:
        """Whether it is to run."""
        return self.desired in {"running", "ready"}


@dataclass(frozen=True, slots=True)
class Service:
    """A service and its tasks.

    Args:
        name: Without the stack's.
        image: Of its specification.
        desired: Replicas that are to run.
        update: State of the last update; empty if there was none.
        update_began: When it began, ISO 8601; empty likewise.
        update_says: What the swarm says of it.
        tasks: The newest first.
        reversible: Whether there is a specification to go back to.
        secrets: Full name of each secret by the file it is to the service.
    """

    name: str
    image: str
    desired: int
    update: str
    update_began: str
    update_says: str
    tasks: tuple[Task, ...]
    reversible: bool
    secrets: Mapping[str, str]

    @property
    def running(self) -> int:
        """Tasks that run, whatever their specification."""
        return sum(task.state == "running" and task.wanted for task in self.tasks)

    @property
    def converged(self) -> bool:
        """Whether what runs is exactly what was asked for; a task runs once it is healthy."""
        wanted = [task for task in self.tasks if task.wanted]
        return (
            self.update not in UPDATING
            and len(wanted) == self.desired
            and all(task.state == "running" and task.current for task in wanted)
        )

    def failures(self, most: int = 3) -> tuple[str, ...]:
        """What its newest failed tasks died of."""
        failed = [task for task in self.tasks if task.state in FAILED or task.error]
        return tuple(dict.fromkeys(task.error or task.state for task in failed))[:most]


def services_of(engine: Engine, stack: str) -> dict[str, Service]:
    """All services of a stack by name, with their tasks; none if there is no such stack."""
    listed = engine.rows("service", "ls", "--filter", f"label=com.docker.stack.namespace={stack}")
    try:
        specs = engine.inspect("service", [str(row["ID"]) for row in listed])
        tasks = _tasks(engine, specs)
    except EngineFailed:
        if stack_is_gone(engine, stack):
            return {}
        raise
    # A global service has no task on the others.
    nodes = sum(
        row["Status"] == "Ready" and row["Availability"] != "Drain"
        for row in engine.rows("node", "ls")
    )
    return {
        service.name: service for service in (_service(stack, spec, tasks, nodes) for spec in specs)
    }


def stack_is_gone(engine: Engine, stack: str) -> bool:
    """Whether the swarm has no service of the stack."""
    return not engine.rows("service", "ls", "--filter", f"label=com.docker.stack.namespace={stack}")


def _tasks(engine: Engine, specs: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_service: dict[str, list[dict[str, Any]]] = {str(spec["ID"]): [] for spec in specs}
    if by_service:
        ids = engine.run("service", "ps", "--no-trunc", "--quiet", *by_service).split()
        for task in engine.inspect("task", ids, missing_ok=True):
            by_service[str(task["ServiceID"])].append(task)
    return by_service


def _service(
    stack: str, spec: Mapping[str, Any], tasks: Mapping[str, list[dict[str, Any]]], nodes: int
) -> Service:
    wanted = spec["Spec"]
    container = wanted["TaskTemplate"]["ContainerSpec"]
    status = spec.get("UpdateStatus") or {}
    newest = sorted(tasks[str(spec["ID"])], key=lambda task: task["CreatedAt"], reverse=True)
    replicated = wanted["Mode"].get("Replicated")
    return Service(
        name=str(wanted["Name"]).removeprefix(f"{stack}_"),
        image=str(container["Image"]),
        desired=nodes if replicated is None else int(replicated.get("Replicas", 1)),
        update=str(status.get("State", "")),
        update_began=str(status.get("StartedAt", "")),
        update_says=str(status.get("Message", "")),
        tasks=tuple(_task(task, container) for task in newest),
        reversible=bool(spec.get("PreviousSpec")),
        secrets={
            str(one["File"]["Name"]): str(one["SecretName"])
            for one in container.get("Secrets") or ()
        },
    )


def _task(task: Mapping[str, Any], container: Mapping[str, Any]) -> Task:
    status = task["Status"]
    return Task(
        task_id=str(task["ID"]),
        slot=int(task.get("Slot", 0)),
        node=str(task.get("NodeID", "")),
        desired=str(task["DesiredState"]),
        state=str(status["State"]),
        since=str(status["Timestamp"]),
        error=str(status.get("Err", "")),
        current=_said(task["Spec"].get("ContainerSpec", {})) == _said(container),
        container=str((status.get("ContainerStatus") or {}).get("ContainerID", "")),
    )


def _said(container: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in container.items() if value != FILLED_IN.get(name, _NONE)}

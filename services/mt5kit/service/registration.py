"""A replica's entry in the registry that operators read."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec
import psutil
import structlog

from mt5kit.errors import Mt5SwarmError, Unavailable
from mt5kit.state.postgres import InstanceReport

log = structlog.get_logger(__name__)

HEARTBEAT_S: Final = 5.0
# Three heartbeats: one may be late, two are not.
DEAD_AFTER_S: Final = 15.0
# With the pause until somebody looks, what a crash leaves behind is ended within 15 s.
SILENT_AFTER_S: Final = 10
CLOSE_LIMIT_S: Final = 2.0

# Control groups of version 2 and version 1.
_MEMORY_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class Registry(Protocol):
    """What the registration needs of `WorkerStore`."""

    async def register_instance(self, report: InstanceReport) -> None:
        """Enter a replica that has just started."""

    async def heartbeat_instance(self, report: InstanceReport) -> None:
        """Renew a replica's entry."""

    async def remove_instance(self, instance_id: str) -> None:
        """Take a replica's entry away."""

    async def remove_dead_instances(self, older_than_s: float) -> tuple[str, ...]:
        """Take entries away that nobody has renewed for so long; their ids."""

    async def end_silent_subscriptions(self, older_than_s: int) -> int:
        """End sockets that nobody has renewed for so long; how many."""


class Usage:
    """What this process takes of its machine. Reads /proc, so ask from a thread."""

    def __init__(self, limits: tuple[Path, ...] = _MEMORY_LIMITS) -> None:
        self._process = psutil.Process()
        # The first answer is always 0: it counts from here.
        self._process.cpu_percent()
        self._limit = _memory_limit(limits)

    def cpu(self) -> float:
        """Percent of one core since the last call."""
        return self._process.cpu_percent()

    def memory(self) -> float:
        """Resident bytes as percent of the container's limit, or of the machine's memory."""
        resident: int = self._process.memory_info().rss
        return 100.0 * resident / self._limit


class Registration:
    """Enters this replica, renews its entry, takes it away, and cleans up after dead replicas.

    Args:
        registry: Where the entries are.
        report: Tells of this replica at each heartbeat, in the event loop. Its CPU and memory are
            added here where it leaves them out.
        heartbeat_s: Seconds between two heartbeats.
        usage: What it takes of its machine.
    """

    def __init__(
        self,
        registry: Registry,
        report: Callable[[], InstanceReport],
        *,
        heartbeat_s: float = HEARTBEAT_S,
        usage: Usage | None = None,
    ) -> None:
        self._registry = registry
        self._report = report
        self._heartbeat_s = heartbeat_s
        self._usage = usage or Usage()
        self._entered = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Enter the replica and keep at it in the background; needs a running event loop."""
        self._task = asyncio.create_task(self._keep_renewing(), name="registration")

    async def beat(self) -> None:
        """Enter the replica or renew its entry; remove those of dead ones, and end their sockets.

        Raises:
            DatabaseUnavailable: Postgres is away.
        """
        report = await self._with_usage(self._report())
        if self._entered:
            await self._registry.heartbeat_instance(report)
        else:
            await self._registry.register_instance(report)
            self._entered = True
        if dead := await self._registry.remove_dead_instances(DEAD_AFTER_S):
            log.info("dead_instances_removed", instances=dead)
        if ended := await self._registry.end_silent_subscriptions(SILENT_AFTER_S):
            log.info("silent_subscriptions_ended", ended=ended)

    async def aclose(self) -> None:
        """Stop, and take the entry away; others do so after a while if Postgres is away now."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._registry.remove_instance(self._report().instance_id)
        except (Mt5SwarmError, TimeoutError) as left:
            log.warning("registration_left", error=repr(left))

    async def _with_usage(self, report: InstanceReport) -> InstanceReport:
        cpu, memory = await asyncio.to_thread(lambda: (self._usage.cpu(), self._usage.memory()))
        return msgspec.structs.replace(
            report,
            cpu_usage=cpu if report.cpu_usage is None else report.cpu_usage,
            memory_usage=memory if report.memory_usage is None else report.memory_usage,
        )

    async def _keep_renewing(self) -> None:
        failed = False
        while True:
            try:
                await self.beat()
            except Unavailable as away:
                if not failed:
                    log.warning("registration_waits", error=away.message)
                failed = True
            except Exception:
                log.exception("registration_failed")
                failed = True
            else:
                failed = False
            await asyncio.sleep(self._heartbeat_s)


def _memory_limit(files: tuple[Path, ...]) -> int:
    machine: int = psutil.virtual_memory().total
    for file in files:
        # "max", and on version 1 a number near 2^63, mean that there is none.
        with suppress(OSError, ValueError):
            return min(int(file.read_text()), machine)
    return machine

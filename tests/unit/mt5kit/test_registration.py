"""A replica's entry in the registry: entered, renewed, taken away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from mt5kit.service.registration import DEAD_AFTER_S, SILENT_AFTER_S, Registration, Usage
from mt5kit.state.postgres import DatabaseUnavailable, InstanceReport


class Registry:
    def __init__(self) -> None:
        self.entries: dict[str, InstanceReport] = {}
        self.calls: list[str] = []
        self.failures: list[Exception] = []
        self.removed_before: list[float] = []
        self.ended_before: list[int] = []

    async def register_instance(self, report: InstanceReport) -> None:
        self._enter("register", report)

    async def heartbeat_instance(self, report: InstanceReport) -> None:
        self._enter("heartbeat", report)

    def _enter(self, call: str, report: InstanceReport) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.calls.append(call)
        self.entries[report.instance_id] = report

    async def remove_instance(self, instance_id: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.entries.pop(instance_id, None)

    async def remove_dead_instances(self, older_than_s: float) -> tuple[str, ...]:
        self.removed_before.append(older_than_s)
        return ()

    async def end_silent_subscriptions(self, older_than_s: int) -> int:
        self.ended_before.append(older_than_s)
        return 0


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def registration(registry: Registry) -> AsyncIterator[Registration]:
    def report() -> InstanceReport:
        return InstanceReport("api-1", "api", active_connections=len(registry.calls))

    registration = Registration(registry, report, heartbeat_s=0.001)
    yield registration
    registry.failures = []
    await registration.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_it_registers_once_then_renews_with_fresh_figures(
    registration: Registration, registry: Registry
) -> None:
    registration.start()
    await until(lambda: len(registry.calls) > 3)
    assert registry.calls[0] == "register"
    assert set(registry.calls[1:]) == {"heartbeat"}
    entry = registry.entries["api-1"]
    assert entry.active_connections > 1
    assert entry.cpu_usage is not None
    assert entry.cpu_usage >= 0
    assert entry.memory_usage is not None
    assert 0 < entry.memory_usage < 100
    assert set(registry.removed_before) == {DEAD_AFTER_S}
    assert set(registry.ended_before) == {SILENT_AFTER_S}
    await registration.aclose()
    assert registry.entries == {}


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away"), KeyError()])
async def test_failures_end_nothing_and_it_still_registers_first(
    registration: Registration, registry: Registry, failure: Exception
) -> None:
    registry.failures = [failure] * 3
    with capture_logs() as logs:
        registration.start()
        await until(lambda: len(registry.calls) > 1)
    known = isinstance(failure, DatabaseUnavailable)
    event = "registration_waits" if known else "registration_failed"
    assert [line["event"] for line in logs].count(event) == (1 if known else 3)
    assert registry.calls[:2] == ["register", "heartbeat"]


async def test_a_stop_ends_though_postgres_is_away(
    registration: Registration, registry: Registry
) -> None:
    registration.start()
    await until(lambda: bool(registry.calls))
    registry.failures = [DatabaseUnavailable("away")] * 5
    await registration.aclose()
    assert "api-1" in registry.entries


@pytest.mark.parametrize(
    ("text", "limited"), [("1073741824\n", True), ("max\n", False), (f"{2**63 - 4096}\n", False)]
)
def test_memory_is_of_the_container_s_limit_if_it_has_one(
    tmp_path: Path, text: str, limited: bool
) -> None:
    file = tmp_path / "memory.max"
    file.write_text(text)
    machine = psutil.virtual_memory().total
    usage = Usage((tmp_path / "absent", file))
    assert usage._limit == (min(2**30, machine) if limited else machine)

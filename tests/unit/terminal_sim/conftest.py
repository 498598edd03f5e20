from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import terminal_sim.scenario
from terminal_sim.module.build import build
from terminal_sim.scenario.loading import load
from terminal_sim.scenario.model import Scenario
from terminal_sim.terminal.session import Terminal, Timing
from terminal_sim.testing import DirectBrokers, ManualClock, MemoryBoard

# 2026-11-18 12:34:56.789 UTC, a Wednesday.
NOW_MS = 1_795_005_296_789


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def board() -> MemoryBoard:
    return MemoryBoard()


@pytest.fixture(scope="session")
def demo() -> Scenario:
    return load(Path(next(iter(terminal_sim.scenario.__path__))) / "demo.toml", NOW_MS)


@pytest.fixture
def brokers(demo: Scenario, clock: ManualClock) -> DirectBrokers:
    return DirectBrokers.of(demo, clock)


@pytest.fixture
def terminal(brokers: DirectBrokers, clock: ManualClock, board: MemoryBoard) -> Terminal:
    return Terminal(brokers, clock, Timing(login_seconds=0), board)


@pytest.fixture
def mt5(terminal: Terminal) -> Any:
    """A module in this process, with the first demo account logged in."""
    module = build(terminal)
    assert module.initialize()
    assert module.login(5001001, password="Demo-1001-main", server="MT5Swarm-Demo")
    return module


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def make(text: str, name: str = "scenario.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return make

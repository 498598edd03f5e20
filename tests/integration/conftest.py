"""Simulated terminals for the integration tests."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from local_stack.simulator import PlacedTerminal, Simulator

SERVER = "Test-Server"
PASSWORDS = {1001: "alpha-pass-1001", 1002: "beta-pass-1002", 1003: "gamma-pass-1003"}


def account(login: int, positions: int = 2) -> dict[str, object]:
    symbols = ("EURUSD", "XAUUSD", "BTCUSD", "USDJPY", "GBPUSD")
    return {
        "login": login,
        "password": PASSWORDS[login],
        "server": SERVER,
        "name": f"Test {login}",
        "balance": 10_000 + login,
        "registered_at": "2026-01-01T00:00:00Z",
        "positions": [
            {
                "symbol": symbols[number % len(symbols)],
                "type": "buy" if number % 2 else "sell",
                "volume": 0.1,
                "opened_at": f"2026-01-05T10:00:{number % 60:02d}Z",
            }
            for number in range(positions)
        ]
        + [
            {
                "symbol": "EURUSD",
                "type": "buy",
                "volume": 0.1,
                "opened_at": f"2026-02-0{day}T10:00:00Z",
                "closed_at": f"2026-02-0{day}T12:00:00Z",
            }
            for day in range(1, 7)
        ],
        "orders": [
            {
                "symbol": "EURUSD",
                "type": "buy_limit",
                "volume": 0.1,
                "placed_at": "2026-01-05T11:00:00Z",
                # Where the market never comes.
                "price": 0.5,
            }
        ],
    }


@dataclass(frozen=True)
class Simulated:
    """A running simulator: its terminals by id, and its control API."""

    server: Simulator
    terminals: dict[str, PlacedTerminal]
    control: httpx.Client

    def states(self) -> list[dict[str, Any]]:
        states: list[dict[str, Any]] = self.control.get("/terminals").json()["terminals"]
        return states


SimulatedTerminals = Callable[..., Simulated]


@pytest.fixture(scope="module")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedTerminals]:
    """Starts simulators that end with the module: `simulate(["t-1", ...], login_seconds=0)`."""
    started: list[Simulated] = []

    def start(names: list[str], *, login_seconds: float = 0.0, role: str = "api") -> Simulated:
        scenario = {
            "servers": [{"name": SERVER, "clock": "EET-US"}],
            "accounts": [account(login) for login in PASSWORDS],
        }
        key = secrets.token_urlsafe(16)
        server = Simulator(
            Path(tmp_path_factory.mktemp("simulator")),
            msgspec.json.encode(scenario),
            key,
            names=[(name, role) for name in names],
            login_seconds=login_seconds,
        )
        server.start()
        control = httpx.Client(
            base_url=server.ready().control_url, headers={"X-Supervisor-Key": key}, timeout=30
        )
        terminals = {terminal.terminal_id: terminal for terminal in server.terminals()}
        started.append(Simulated(server, terminals, control))
        return started[-1]

    yield start
    for simulated in started:
        simulated.control.close()
        simulated.server.stop()


def freeze(pid: int) -> None:
    """Stop a process and return when all its threads stand: a signal takes effect when it does."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")

    def states() -> set[str]:
        # The field after the command in brackets, which may itself hold anything.
        stats = [stat.read_text() for stat in threads.glob("*/stat")]
        return {stat.rpartition(")")[2].split()[0] for stat in stats}

    while states() != {"T"}:
        time.sleep(0.001)

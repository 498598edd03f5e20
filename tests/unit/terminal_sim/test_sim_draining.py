"""What SIGTERM does while clients are connected."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import psutil
import pytest
import rpyc
from rpyc.core.service import ClassicClient

from terminal_sim.supervisor import draining
from terminal_sim.supervisor.draining import occupied, until_left
from terminal_sim.testing import Ready, running

pytestmark = pytest.mark.long

# Longer than any test waits.
LONG_S = "3600"
PATIENCE_S = 30.0
HERE = "127.0.0.1"


@contextmanager
def client(ready: Ready, n: int = 1) -> Iterator[Any]:
    """A connection to a terminal, which has been answered once."""
    where = ready.terminals[n - 1]
    connection = rpyc.connect(where.host, where.port, service=ClassicClient)
    with closing(connection):
        assert connection.eval("1 + 1") == 2
        yield connection


def states(ready: Ready) -> list[str]:
    with httpx.Client(base_url=ready.control_url, timeout=PATIENCE_S) as control:
        return [each["state"] for each in control.get("/terminals").json()["terminals"]]


def terminate(ready: Ready) -> None:
    os.kill(ready.pid, signal.SIGTERM)


def until_draining(ready: Ready) -> None:
    while states(ready) != ["draining"] * len(ready.terminals):
        pass


def exit_code(ready: Ready) -> int | None:
    """The code with which it ends, once it has."""
    code: int | None = psutil.Process(ready.pid).wait(PATIENCE_S)
    return code


def test_terminals_drain_until_the_last_client_has_left() -> None:
    with running("--terminals", "2", "--drain-seconds", LONG_S) as ready:
        with client(ready) as one:
            terminate(ready)
            until_draining(ready)
            assert one.eval("2 + 2") == 4
            with client(ready, 2):
                assert states(ready) == ["draining", "draining"]
            assert one.eval("3 + 3") == 6
        assert exit_code(ready) == 0


def test_a_client_that_stays_is_cut_off_when_the_time_is_over() -> None:
    with running("--drain-seconds", "0.5") as ready, client(ready) as staying:
        terminate(ready)
        assert exit_code(ready) == 0
        with pytest.raises(EOFError):
            staying.eval("1 + 1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    with running("--drain-seconds", LONG_S) as ready, client(ready):
        terminate(ready)
        until_draining(ready)
        os.kill(ready.pid, number)
        assert exit_code(ready) == 0


def test_it_drains_only_where_it_is_told_to() -> None:
    with running() as ready, client(ready):
        terminate(ready)
        assert exit_code(ready) == 0


def test_sigint_waits_for_nobody() -> None:
    with running("--drain-seconds", LONG_S) as ready, client(ready):
        os.kill(ready.pid, signal.SIGINT)
        assert exit_code(ready) == 0


def test_without_terminals_there_is_nothing_to_drain() -> None:
    with running("--terminals", "0", "--drain-seconds", LONG_S) as ready:
        terminate(ready)
        assert exit_code(ready) == 0


def test_a_port_is_occupied_while_a_client_is_connected_to_it() -> None:
    with socket.create_server((HERE, 0)) as one, socket.create_server((HERE, 0)) as two:
        ports = [each.getsockname()[1] for each in (one, two)]
        assert not occupied(HERE, ports)
        with socket.create_connection((HERE, ports[0])) as connection:
            taken, _ = one.accept()
            for host in (HERE, "localhost", "0.0.0.0"):  # noqa: S104 - read, not bound
                assert occupied(host, ports)
            assert not occupied(HERE, ports[1:])
            assert not occupied("127.0.0.2", ports), "another container's address"
            # The client's own port is none of these.
            assert connection.getsockname()[1] not in ports
            taken.close()
        assert not occupied(HERE, ports)


async def test_it_is_over_when_nobody_is_connected_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draining, "QUIET_S", 0.0)
    answers = [True, True, True, False, True]
    assert await until_left(lambda: answers.pop(0), 3600.0, asyncio.Event())
    assert answers == [True]


async def test_a_client_that_comes_back_is_waited_for_anew() -> None:
    # The last of them is longer gone than a client that only changes its connection.
    answers = [True, False, False, True]
    seen: list[bool] = []

    def connected() -> bool:
        seen.append(answers.pop(0) if answers else False)
        return seen[-1]

    assert await until_left(connected, 3600.0, asyncio.Event())
    assert not answers
    assert not any(seen[4:])

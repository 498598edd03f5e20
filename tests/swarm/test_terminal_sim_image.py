"""The image of the simulated terminals, run by a real Docker."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mt5linux import MetaTrader5
from tests.swarm.docker_cli import Docker
from tests.swarm.images import build_image

IMAGE = "mt5-terminal-sim:test"
LABEL = f"mt5-image-test={uuid4().hex}"
LOGIN, PASSWORD, SERVER = 5001001, "Demo-1001-main", "MT5Swarm-Demo"
PATIENCE_S = 60.0
# A stop that takes longer is a kill: Docker's own patience is 10 s.
STOP_S = 8.0

pytestmark = pytest.mark.timeout(300)


def until(what: str, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.1)


@pytest.fixture(scope="module", autouse=True)
def _cleared(docker: Docker) -> Iterator[None]:
    build_image(docker, "services/terminal_sim/Dockerfile", IMAGE)
    yield
    for container in docker("ps", "-aq", "--filter", f"label={LABEL}").split():
        docker("rm", "--force", "--volumes", container)
    for kind in ("network", "volume"):
        for name in docker(kind, "ls", "-q", "--filter", f"label={LABEL}").split():
            docker(kind, "rm", name)


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "supervisor_key"
    path.write_text("key-of-an-image-test")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # the container's user is another than ours
    path.chmod(0o644)
    return f"{path}:/run/secrets/supervisor_key:ro"


def start(docker: Docker, key: str, *options: str, **variables: object) -> str:
    """Run a container and return its id once it is healthy."""
    given = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    basic = ("--detach", "--label", LABEL, "--volume", key, "--health-interval", "3s")
    container = docker("run", *basic, *given, *options, IMAGE)
    until("healthy", lambda: state(docker, container)["Health"]["Status"] == "healthy")
    return container


def state(docker: Docker, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", "-f", "{{json .State}}", container))
    return found


@contextmanager
def terminal(docker: Docker, container: str, port: int = 8001) -> Iterator[Any]:
    """Log in to a terminal by mt5linux, through a port published on this machine."""
    host, _, published = docker("port", container, f"{port}/tcp").splitlines()[0].rpartition(":")
    mt5 = MetaTrader5(host, int(published))
    with closing(mt5._MetaTrader5__conn):
        assert mt5.initialize(login=LOGIN, password=PASSWORD, server=SERVER), mt5.last_error()
        yield mt5


def tickets(mt5: Any) -> set[int]:
    return {position.ticket for position in mt5.positions_get()}


def deal(mt5: Any, kind: int, **more: int) -> int:
    """Deal a tenth of a lot and return the ticket of the order, which is that of the position."""
    request = {
        "action": mt5.TRADE_ACTION_DEAL,
        "symbol": "EURUSD",
        "volume": 0.1,
        "type": kind,
        "type_filling": mt5.ORDER_FILLING_IOC,
        **more,
    }
    result = mt5.order_send(request)
    assert result.retcode == mt5.TRADE_RETCODE_DONE, result
    return int(result.order)


def test_the_image_is_made_as_promised(docker: Docker) -> None:
    config = json.loads(docker("image", "inspect", "-f", "{{json .Config}}", IMAGE))
    assert config["User"] == "mt5"
    assert config["Volumes"] == {"/config": {}}
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "mt5-terminal-sim", "health"]
    assert set(config["ExposedPorts"]) == {"8001/tcp", "8100/tcp", "8200/tcp"}
    # What a package index of one's own needs while building stays out of the image.
    left = docker("run", "--rm", "--label", LABEL, "--entrypoint", "sh", IMAGE, "-c",
                  "cat /etc/pip.conf 2>/dev/null; command -v pip; id -u")  # fmt: skip
    assert left.splitlines()[0] == "1000"


def test_two_terminals_are_read_from_outside_and_stop_when_told(docker: Docker, key: str) -> None:
    ports = [part for port in (8001, 8002) for part in ("--publish", f"127.0.0.1::{port}")]
    container = start(docker, key, *ports, MT5_TERMINALS=2)
    for port in (8001, 8002):
        with terminal(docker, container, port) as mt5:
            assert mt5.account_info().login == LOGIN
    began = time.monotonic()
    docker("stop", "--time", "30", container)
    assert time.monotonic() - began < STOP_S
    assert state(docker, container)["ExitCode"] == 0


def test_a_container_that_is_stopped_waits_for_its_clients(docker: Docker, key: str) -> None:
    container = start(docker, key, "--publish", "127.0.0.1::8001")
    with terminal(docker, container) as mt5:
        docker("kill", "--signal", "TERM", container)
        until("draining", lambda: "draining" in docker("exec", container, "terminal-sim", "status"))
        assert mt5.account_info().login == LOGIN
    until("an end", lambda: state(docker, container)["Status"] == "exited")
    assert state(docker, container)["ExitCode"] == 0
    assert "every client has left" in docker.both("logs", container)
    # A second signal waits for nobody.
    container = start(docker, key, "--publish", "127.0.0.1::8001")
    with terminal(docker, container):
        docker("kill", "--signal", "TERM", container)
        until("draining", lambda: "draining" in docker("exec", container, "terminal-sim", "status"))
        docker("kill", "--signal", "TERM", container)
        until("an end", lambda: state(docker, container)["Status"] == "exited")
    assert state(docker, container)["ExitCode"] == 0


def test_a_terminal_that_freezes_makes_its_container_unhealthy(docker: Docker, key: str) -> None:
    container = start(docker, key, "--health-timeout", "8s", "--health-retries", "1")
    docker("exec", container, "terminal-sim", "fault", "freeze", "--terminal", "1", "hold_s=300")
    until("unhealthy", lambda: state(docker, container)["Health"]["Status"] == "unhealthy")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "supervisor_key"),
        ({"MT5_ROLE": "dealer"}, "MT5_ROLE is all, broker or terminal, not dealer"),
        ({"MT5_ROLE": "terminal"}, "MT5_BROKERS"),
        ({"MT5_TERMINALS": "many"}, "--terminals"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    docker: Docker, variables: dict[str, str], said: str
) -> None:
    given = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    container = docker("run", "--detach", "--label", LABEL, *given, IMAGE)
    until("an end", lambda: state(docker, container)["Status"] == "exited")
    assert state(docker, container)["ExitCode"] == 2
    printed = docker.both("logs", container)
    assert said in printed
    assert len(printed.splitlines()) == 1


def test_two_terminal_containers_share_the_account_of_a_broker_container(
    docker: Docker, key: str
) -> None:
    network, volume = f"mt5-net-{uuid4().hex[:8]}", f"mt5-data-{uuid4().hex[:8]}"
    docker("network", "create", "--label", LABEL, network)
    docker("volume", "create", "--label", LABEL, volume)
    joined = ("--network", network)
    named = ("--network-alias", "broker", "--volume", f"{volume}:/config")
    broker = start(docker, key, *joined, *named, MT5_ROLE="broker")
    shown = ("--publish", "127.0.0.1::8001")
    where = {"MT5_ROLE": "terminal", "MT5_BROKERS": f"{SERVER}=broker:8200"}
    one, two = (start(docker, key, *joined, *shown, **where) for _ in range(2))
    with terminal(docker, one) as here, terminal(docker, two) as there:
        before = tickets(there)
        ticket = deal(here, here.ORDER_TYPE_BUY)
        assert ticket not in before
        until("it shows in the other", lambda: ticket in tickets(there))
        docker("restart", "--time", "30", broker)
        until("connected", lambda: here.terminal_info().connected)
        until("the other connected", lambda: there.terminal_info().connected)
        assert ticket in tickets(there)
        deal(here, here.ORDER_TYPE_SELL, position=ticket)
        until("it is gone in the other", lambda: ticket not in tickets(there))
    docker("restart", "--time", "30", one)
    until("healthy again", lambda: state(docker, one)["Health"]["Status"] == "healthy")
    with terminal(docker, one) as again:
        assert ticket not in tickets(again)

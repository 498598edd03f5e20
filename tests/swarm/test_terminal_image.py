"""The image of real terminals on a stand-in for its base, as a stack runs it: without root."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import rpyc
from rpyc.core.service import ClassicClient
from tests.swarm.bases import suite_image
from tests.swarm.docker_cli import Docker
from tests.swarm.images import ROOT, build_image

NAME = f"mt5-terminal-test-{uuid4().hex[:8]}"
LABEL = f"mt5-terminal-test={NAME}"
KEY = "key-of-an-image-test"
PATIENCE_S = 90.0
MEMORY = ("/tmp", "/run/mt5", "/dev/shm")
IMAGE, STANDINS = "services/terminal/Dockerfile", ROOT / "tests/integration/terminal_image/standins"
INSTALLERS = {"python.exe": "python", "wine-mono.msi": "mono", "mt5setup.exe": "mt5setup"}

pytestmark = pytest.mark.timeout(600)


def until(what: str, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.2)


def build(docker: Docker, dockerfile: str, tag: str, *options: str, context: Path = ROOT) -> None:
    build_image(docker, dockerfile, tag, "--label", LABEL, *options, context=context)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the stand-ins for the installers are."""
    directory = tmp_path_factory.mktemp("site")
    for name, text in INSTALLERS.items():
        (directory / name).write_text(text)
    handler = partial(SimpleHTTPRequestHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def installers(site: str, base: str, **hashes: str) -> list[str]:
    known = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in INSTALLERS.items()}
    given = {
        "PYTHON_INSTALLER_URL": f"{site}/python.exe",
        "PYTHON_INSTALLER_SHA256": known["python.exe"],
        "MONO_INSTALLER_URL": f"{site}/wine-mono.msi",
        "MONO_INSTALLER_SHA256": known["wine-mono.msi"],
        "BASE": base,
        **hashes,
    }
    return [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]


@pytest.fixture(scope="module")
def base(docker: Docker) -> Iterator[str]:
    """A stand-in for the base; whatever these tests have made goes with it."""
    name = f"{NAME}-base"
    debian = ("--build-arg", f"DEBIAN={suite_image('trixie')}")
    build(docker, "tests/swarm/terminal_base.Dockerfile", name, *debian, context=STANDINS)
    yield name
    for container in docker("ps", "-aq", "--filter", f"label={LABEL}").split():
        docker("rm", "--force", "--volumes", container)
    for volume in docker("volume", "ls", "-q", "--filter", f"label={LABEL}").split():
        docker("volume", "rm", volume)
    docker("image", "rm", "--force", *docker("images", "-q", "--filter", f"label={LABEL}").split())


@pytest.fixture(scope="module")
def image(docker: Docker, site: str, base: str) -> str:
    build(docker, IMAGE, NAME, *installers(site, base))
    return NAME


@pytest.fixture(scope="module")
def wine_image(docker: Docker, site: str, base: str) -> str:
    """The same with a real Wine in its base."""
    with_wine = f"{NAME}-wine-base"
    standin = ("--build-arg", f"STANDIN={base}")
    build(docker, "tests/swarm/terminal_wine.Dockerfile", with_wine, *standin, context=STANDINS)
    build(docker, IMAGE, f"{NAME}-wine", *installers(site, with_wine))
    return f"{NAME}-wine"


def secret_files(directory: Path) -> list[str]:
    """Mounts of the key, and of MetaTrader's installer."""
    for folder in (directory, *directory.parents[:2]):
        folder.chmod(0o755)  # the container's user is another than ours
    (directory / "key").write_text(KEY)
    (directory / "mt5setup.exe").write_text(INSTALLERS["mt5setup.exe"])
    mounts = {"key": "/run/secrets/supervisor_key", "mt5setup.exe": "/run/mt5setup.exe"}
    return [part for a, b in mounts.items() for part in ("--volume", f"{directory / a}:{b}:ro")]


@pytest.fixture
def secrets(tmp_path: Path) -> list[str]:
    return secret_files(tmp_path)


def start(
    docker: Docker, image: str, secrets: list[str], *options: str, **variables: object
) -> str:
    """Run a container as the stack does, on a new volume, until it is healthy."""
    volume = docker("volume", "create", "--label", LABEL)
    given = {"MT5_SETUP_URL": "file:///run/mt5setup.exe", **variables}
    sets = [part for name, value in given.items() for part in ("--env", f"{name}={value}")]
    places = [part for path in MEMORY for part in ("--tmpfs", path)]
    confined = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    basic = (
        "--detach",
        "--label",
        LABEL,
        "--health-interval",
        "2s",
        "--volume",
        f"{volume}:/config",
    )
    ports = ("--publish", "127.0.0.1::8001", "--publish", "127.0.0.1::8100")
    return docker("run", *basic, *ports, *places, *confined, *secrets, *sets, *options, image)


def state(docker: Docker, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", "-f", "{{json .State}}", container))
    return found


def healthy(docker: Docker, container: str) -> None:
    until(
        f"healthy: {docker.both('logs', container)[-2000:]}",
        lambda: state(docker, container)["Health"]["Status"] == "healthy",
    )


def ended(docker: Docker, container: str) -> None:
    until("an end", lambda: state(docker, container)["Status"] == "exited")


def port_of(docker: Docker, container: str, port: int) -> int:
    return int(docker("port", container, f"{port}/tcp").splitlines()[0].rpartition(":")[2])


def test_the_image_is_made_as_promised(docker: Docker, image: str) -> None:
    config = json.loads(docker("image", "inspect", "-f", "{{json .Config}}", image))
    assert config["User"] == "mt5"
    assert config["Entrypoint"] == ["/usr/bin/tini", "--", "mt5-supervisor"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "mt5-supervisor", "health"]
    assert set(config["Volumes"]) == {"/config"}
    assert config["Labels"]["org.opencontainers.image.title"] == "mt5-terminal"
    left = docker("run", "--rm", "--label", LABEL, "--entrypoint", "sh", image, "-c",
                  "id -u; find / -xdev -perm /6000 -type f 2>/dev/null; "
                  "cat /etc/pip.conf 2>/dev/null; "
                  "stat -c %U:%a /config /run/mt5; ls /opt/mt5/wheels")  # fmt: skip
    lines = left.splitlines()
    assert lines[:3] == ["10000", "mt5:755", "root:1777"]
    assert len([line for line in lines if line.endswith(".whl")]) == 6


def test_another_installer_than_the_pinned_one_ends_the_build(
    docker: Docker, site: str, base: str
) -> None:
    wrong = installers(site, base, PYTHON_INSTALLER_SHA256="0" * 64)
    with pytest.raises(RuntimeError, match="is another file: SHA-256"):
        build(docker, IMAGE, f"{NAME}-wrong", *wrong)


def test_an_empty_volume_becomes_terminals_without_root_or_a_writable_system(
    docker: Docker, image: str, secrets: list[str]
) -> None:
    container = start(docker, image, secrets, TERMINALS=2)
    healthy(docker, container)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port_of(docker, container, 8100)}",
        headers={"X-Supervisor-Key": KEY},
        timeout=30,
    ) as control:
        rows = control.get("/terminals").json()["terminals"]
        assert [(row["n"], row["state"]) for row in rows] == [(1, "running"), (2, "running")]
        link = rpyc.connect("127.0.0.1", port_of(docker, container, 8001), service=ClassicClient)
        mt5 = link.modules.MetaTrader5
        assert mt5.initialize()
        assert mt5.login(1001, password="right", server="S")
        until(
            "one client", lambda: control.get("/terminals").json()["terminals"][0]["clients"] == 1
        )
        listening = docker("exec", container, "cat", "/proc/net/tcp", "/proc/net/tcp6")
        ports = {
            int(line.split()[1].rpartition(":")[2], 16)
            for line in listening.splitlines()
            if len(line.split()) > 3 and line.split()[3] == "0A"
        }
        assert ports == {8001, 8002, 8100}
        on_disk = docker(
            "exec", container, "sh", "-c", "grep -rl 1001 /config --include=accounts.dat; true"
        )
        assert not on_disk
        docker("kill", "--signal", "TERM", container)
        until(
            "draining",
            lambda: control.get("/terminals").json()["terminals"][0]["state"] == "draining",
        )
        assert mt5.account_info().login == 1001
        link.close()
    ended(docker, container)
    assert state(docker, container)["ExitCode"] == 0


def test_without_its_mounts_it_says_what_it_lacks(
    docker: Docker, image: str, secrets: list[str]
) -> None:
    plain = ("run", "--detach", "--label", LABEL)
    lacking = {
        docker(*plain, image): "supervisor_key: No such file",
        docker(*plain, *secrets, image): "/run/mt5 has to be a tmpfs",
    }
    for container, said in lacking.items():
        ended(docker, container)
        assert state(docker, container)["ExitCode"] == 2
        printed = docker.both("logs", container)
        assert said in printed
        assert len(printed.splitlines()) == 1


# -- on a real Wine, with Notepad in MetaTrader's place -------------------------------------------


FIRST = "C:\\mt5\\1\\terminal64.exe"


class Windows:
    """A container in which real Wine runs two terminals."""

    def __init__(self, docker: Docker, container: str) -> None:
        self.docker = docker
        self.container = container

    def run(self, command: str) -> str:
        return self.docker("exec", self.container, "sh", "-c", command, check=False)

    def pids(self, argument: str) -> set[str]:
        """Ids of processes by what they were started with, which begins the line."""
        lines = [line.split(None, 1) for line in self.run("ps -eo pid,args").splitlines()[1:]]
        return {pid for pid, command in lines if command.startswith(argument)}

    def terminals(self) -> list[set[str]]:
        return [self.pids(f"C:\\mt5\\{number}\\terminal64.exe /portable") for number in (1, 2)]

    def well(self) -> bool:
        one_each = all(len(pids) == 1 for pids in self.terminals())
        return one_each and self.run("mt5-supervisor health") == "2 terminals well"

    def kill(self, pids: set[str]) -> None:
        self.run(f"kill -9 {' '.join(pids)}")

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [
            line
            for line in self.docker.both("logs", self.container).splitlines()
            if line[:1] == "{"
        ]
        return [event for line in lines if (event := json.loads(line))["event"] == name]


@pytest.fixture(scope="module")
def windows(docker: Docker, wine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Windows:
    mounts = secret_files(tmp_path_factory.mktemp("secrets"))
    container = start(docker, wine_image, mounts, TERMINALS=2)
    healthy(docker, container)
    return Windows(docker, container)


@pytest.mark.long
def test_wine_makes_its_prefix_and_runs_each_terminal_from_its_own_directory(
    windows: Windows,
) -> None:
    until("well", windows.well)
    assert [event["number"] for event in windows.events("first_boot_step")] == [1, 2, 3, 4, 5, 6]
    # What the installer has started is gone, and its settings have reached the disk.
    assert not windows.pids("C:\\Program Files")
    registry = windows.run("cat /config/.wine/user.reg")
    assert '"Version"="win10"' in registry
    assert '"ShowCrashDialog"=dword:00000000' in registry
    assert windows.run("readlink /config/.wine/drive_c/mt5/2/Config") == "/run/mt5/2/config"
    assert not windows.events("part_ended")


@pytest.mark.long
@pytest.mark.parametrize("killed", [FIRST, "Xvfb", "/usr/lib/wine/wineserver"])
def test_what_ends_in_wine_is_started_again(windows: Windows, killed: str) -> None:
    until("well", windows.well)
    before = windows.pids(killed)
    assert before
    windows.kill(before)
    until("another", lambda: bool(windows.pids(killed)) and not windows.pids(killed) & before)
    until("well", windows.well)


@pytest.mark.long
def test_a_terminal_that_a_windows_program_starts_is_found(windows: Windows) -> None:
    until("well", windows.well)
    (before,) = windows.pids(FIRST)
    supervisor = windows.run("pgrep -f terminal.supervisor").split()
    windows.run(f"kill -STOP {' '.join(supervisor)}; kill -9 {before}")
    windows.run('HOME=/config DISPLAY=:1 wine start "C:\\mt5\\1\\terminal64.exe" /portable')
    (adopted,) = windows.pids(FIRST)
    windows.run(f"kill -CONT {' '.join(supervisor)}")
    until("its end is noticed", lambda: windows.events("part_started")[-1]["pid"] == int(adopted))
    assert windows.pids(FIRST) == {adopted}


@pytest.mark.long
def test_wine_ends_in_good_order(windows: Windows) -> None:
    until("well", windows.well)
    windows.docker("stop", "--time", "60", windows.container)
    assert state(windows.docker, windows.container)["ExitCode"] == 0
    assert [event["terminal"] for event in windows.events("terminal_stopped")] == [1, 2]
    assert windows.events("stopped")
    assert not windows.events("wineserver_failed")

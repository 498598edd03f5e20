"""The servers people have: RPyC 5.0.1, 5.2.3 and 5.3.1, each with the core of the matrix.

The simulator runs with another RPyC first on its path, installed by pip from a lock beside this
file into a directory of its own. Our side stays as it is. plumbum is the one of the terminal image.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tests.contract.conftest  # noqa: F401 - rewrites the assertions of the rows
from tests.contract.catalogue import Row
from tests.contract.clients import AgentClient, connected, disconnect
from tests.contract.matrix import parameters, run
from tests.contract.targets import Target, simulator

from mt5kit.errors import TerminalTimeout, TerminalUnavailable

LOCKS = Path(__file__).with_name("rpyc")
VERSIONS = ("5.0.1", "5.2.3", "5.3.1")
# Nothing of ours speaks this one: 6 changed the messages.
FOREIGN = "6.0.2"
PIP_LIMIT_S = 180


def installed(version: str, folder: Path) -> Path:
    """Install one version into a folder; fails the test when it cannot be had."""
    lock = LOCKS / f"{version}.lock"
    options = ("--disable-pip-version-check", "--no-input", "--quiet", "--retries", "1")
    command = (sys.executable, "-m", "pip", *options, "install", "--no-deps", "--require-hashes")
    work = subprocess.run(
        (*command, "--target", str(folder), "-r", str(lock)),
        capture_output=True,
        text=True,
        timeout=PIP_LIMIT_S,
        check=False,
    )
    if work.returncode:
        pytest.fail(
            f"RPyC {version} could not be installed: is a package index reachable by pip?\n"
            f"{work.stderr}"
        )
    return folder


def served_with(version: str, folder: Path) -> dict[str, str]:
    """The environment of a simulator with this version first on its path."""
    paths = (str(installed(version, folder)), os.environ.get("PYTHONPATH", ""))
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def target(version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp(f"rpyc-{version}")
    with simulator(served_with(version, folder)) as target:
        yield target


def test_this_version_serves(target: Target, version: str) -> None:
    for where in target.terminals:
        mt5 = connected(*where)
        try:
            # A tuple in 5.0, a text later.
            found = mt5.eval("__import__('rpyc').__version__")
            assert version in {found, ".".join(map(str, found))}
            # What the module says of itself could come from anywhere: look where it is.
            assert f"rpyc-{version}" in mt5.eval("__import__('rpyc').__file__")
            assert mt5.eval("__import__('plumbum').__version__") == "1.7.0"
        finally:
            disconnect(mt5)


@pytest.mark.parametrize(("row", "client"), list(parameters(core=True)))
def test_core_row(row: Row, client: str, target: Target) -> None:
    run(row, client, target)


def test_a_server_of_version_6_is_refused_at_once(tmp_path: Path) -> None:
    with simulator(served_with(FOREIGN, tmp_path)) as target:
        host, port = target.terminals[0]
        agent = AgentClient(host, port, 1)
        try:
            with pytest.raises(TerminalUnavailable) as refused:
                agent.sign_in(target.home, timeout_ms=8000)
        finally:
            agent.close()
        # At once and for good: it is no terminal that is slow or busy.
        assert not isinstance(refused.value, TerminalTimeout)
        assert "does not speak RPyC 5" in str(refused.value)

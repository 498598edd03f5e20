"""One engine and one deployment for all tests that need a swarm."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.swarm.bases import BASES, ensure_base
from tests.swarm.deployed import STACK, Deployed
from tests.swarm.docker_cli import Docker
from tests.swarm.figures import Figures
from tests.swarm.outside import RESOLVER, Outside
from tests.swarm.own_engine import CACHE, OwnEngine

FIGURES = pytest.StashKey[Figures]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The deployment's tests come last: they break what they stand on."""
    items.sort(key=lambda item: item.path.name == "test_stack.py")


@pytest.fixture(scope="session")
def engine() -> Iterator[OwnEngine]:
    """An engine of our own that manages a swarm; nothing but images stays on it."""
    own = OwnEngine(CACHE)
    own.start()
    try:
        own.forget()
        own.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        yield own
        own.forget()
    finally:
        own.stop()
        own.remove()
        if os.environ.get("MT5_SWARM_FORGET"):
            shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def docker(request: pytest.FixtureRequest) -> Docker:
    """A client of the engine that `DOCKER_HOST` names, or of our own; every base image is there."""
    given = "DOCKER_HOST" in os.environ
    docker: Docker = Docker() if given else request.getfixturevalue("engine").docker
    for base in BASES:
        ensure_base(docker, base)
    return docker


@pytest.fixture(scope="session")
def outside() -> Iterator[Outside]:
    """Whoever answers for names that nobody has."""
    hostile = Outside()
    hostile.start()
    yield hostile
    hostile.stop()


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """What is measured on the way, for the table at the end."""
    found = Figures()
    request.config.stash[FIGURES] = found
    return found


@pytest.fixture(scope="session")
def stack(
    engine: OwnEngine, docker: Docker, outside: Outside, figures: Figures
) -> Iterator[Deployed]:
    """The stack on simulated terminals, deployed by make; removed at the end."""
    assert docker is engine.docker, "an engine that may be restarted: without DOCKER_HOST"
    # What an earlier run wrote; a copy of secrets is never written over.
    shutil.rmtree(CACHE / "deployment", ignore_errors=True)
    deployed = Deployed(docker, CACHE / "deployment")
    with figures.timed("secrets"):
        deployed.make_secrets()
    with figures.timed("images built, from base images that were there"):
        deployed.make_certificate()
    # From here on every name that nobody has is lied about.
    engine.restart(RESOLVER)
    with figures.timed("deploy, from nothing to converged"):
        deployed.deploy()
    yield deployed
    deployed.make("undeploy", arguments="--data --secrets")
    left = docker("volume", "ls", "--quiet", "--filter", f"name={STACK}_")
    assert not left, f"volumes are left: {left}"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The table of what was measured."""
    found = config.stash.get(FIGURES, None)
    if found is not None and found.rows:
        terminalreporter.section("figures of this run")
        terminalreporter.write(found.table())
        if record := os.environ.get("MT5_SWARM_RECORD"):
            Path(record).write_text(found.page(), encoding="utf-8")

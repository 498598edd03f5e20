"""A stage for each test: empty, or with terminals that run already."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.integration.terminal_image.stage import Stage, staged


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Makes a stage for a number of terminals; nothing runs on it yet."""
    with ExitStack() as made:

        def make(terminals: int = 1) -> Stage:
            return made.enter_context(staged(tmp_path, terminals))

        yield make


@pytest.fixture
def empty(stages: Callable[..., Stage]) -> Stage:
    """For one terminal, with an empty volume."""
    return stages()


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume on which the first boot is done."""
    directory = tmp_path_factory.mktemp("volume")
    with staged(directory, 1) as stage:
        stage.start()
        stage.running()
        stage.signal()
        assert stage.exit_code() == 0
        return stage.home


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, volume: Path) -> Iterator[Stage]:
    """One terminal that runs, for the tests of a module that leave it as it was."""
    with staged(tmp_path_factory.mktemp("up"), 1) as shared:
        shared.take_over(volume)
        shared.start()
        shared.running()
        yield shared


@pytest.fixture
def stage(empty: Stage, volume: Path) -> Stage:
    """For one terminal, after its first boot; nothing runs on it yet."""
    empty.take_over(volume)
    return empty

"""A stage for each test, and one whose terminals run already for those that leave it as it was."""

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
def stage(stages: Callable[..., Stage]) -> Stage:
    """For one terminal."""
    return stages()

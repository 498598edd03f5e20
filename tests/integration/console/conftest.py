"""The console's tests share a process with others, whose remote objects it must not touch."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def only_our_objects() -> Iterator[None]:
    """NiceGUI looks at every object there is when it starts; a dead RPyC proxy fails at that."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()

"""One network with stand-ins for all files of this directory, and nginx in front of them."""

from collections.abc import Iterator
from typing import Final

import pytest
from tests.swarm.docker_cli import Docker
from tests.swarm.nginx.site import Nginx, Site, StandIn

REPLICAS: Final = ("first", "second", "third")


@pytest.fixture(scope="session")
def site(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The network; what is started in it is removed at the end."""
    site = Site(docker, tmp_path_factory.mktemp("nginx"))
    try:
        yield site.open()
    finally:
        site.close()


@pytest.fixture(scope="session")
def replicas(site: Site) -> dict[str, StandIn]:
    """Three replicas of the API pool, two of which serve streams and one the console."""
    ways = (("ws-1",), ("ws-2",), ("tasks.console",))
    return {
        name: site.stand_in(name, "tasks.api-pool", *more)
        for name, more in zip(REPLICAS, ways, strict=True)
    }


@pytest.fixture(scope="session")
def nginx(site: Site, replicas: dict[str, StandIn]) -> Nginx:
    """nginx as the stack runs it."""
    return site.nginx("front")

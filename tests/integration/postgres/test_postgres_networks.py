"""No password is sent to a PostgreSQL outside its networks."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.named_servers import ELSEWHERE, HERE, INSIDE, Dns, Door, door_to

from local_stack.embedded import RoleDsns
from mt5kit.networks import Networks
from mt5kit.state.postgres import Database, DatabaseUnavailable

NAME = "postgres"


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    dns = Dns({NAME: [HERE]})
    dns.rule(monkeypatch)
    return dns


@pytest.fixture
async def door(postgres: RoleDsns) -> AsyncIterator[Door]:
    [directory] = parse_qs(urlsplit(postgres.app).query)["host"]
    [path] = Path(directory).glob(".s.PGSQL.*[0-9]")
    async with door_to(str(path)) as door:
        yield door


def named(dsn: str, host: str, port: int) -> str:
    parts = urlsplit(dsn)
    return f"postgresql://{parts.username}:{parts.password}@{host}:{port}{parts.path}"


async def test_a_server_inside_is_spoken_to_at_the_address_that_was_looked_at(
    dns: Dns, door: Door, postgres: RoleDsns
) -> None:
    dns.names[NAME] = ["203.0.113.9", HERE]
    dsn = named(postgres.app, NAME, door.port)
    database = await Database.open(dsn, application_name="test", networks=Networks(INSIDE))
    await database.ping()
    assert (dns.asked, door.come) == ([NAME], 1)
    await database.aclose()


async def test_a_server_outside_is_not_connected_to(
    dns: Dns, door: Door, postgres: RoleDsns
) -> None:
    dsn = named(postgres.app, NAME, door.port)
    database = await Database.open(dsn, application_name="test", networks=Networks(ELSEWHERE))
    with pytest.raises(DatabaseUnavailable, match="postgres resolves outside the permitted"):
        await database.ping()
    assert NAME in dns.asked
    assert not door.come
    await database.aclose()


async def test_every_connection_looks_the_name_up_anew(
    dns: Dns, door: Door, postgres: RoleDsns
) -> None:
    dsn = named(postgres.app, NAME, door.port)
    database = await Database.open(
        dsn, application_name="test", max_connections=1, networks=Networks(INSIDE)
    )
    await database.ping()
    dns.names[NAME] = ["203.0.113.9"]
    await database.ping()
    door.cut()
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    with pytest.raises(DatabaseUnavailable, match="outside"):
        await database.ping()
    dns.names[NAME] = [HERE]
    await database.ping()
    assert door.come == 2
    await database.aclose()


async def test_a_server_behind_a_unix_socket_is_of_no_network(postgres: RoleDsns) -> None:
    database = await Database.open(
        postgres.app, application_name="test", networks=Networks(ELSEWHERE)
    )
    await database.ping()
    await database.aclose()


@pytest.mark.parametrize("dsn", ["postgresql:///x", "postgresql://u:p@one,two/x"])
async def test_a_url_that_may_lead_anywhere_is_refused(dsn: str) -> None:
    with pytest.raises(ValueError, match="names one host"):
        await Database.open(dsn, application_name="test", networks=Networks(INSIDE))

"""The image of PostgreSQL: its first start, its passwords, and who may come in."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest
from tests.swarm.docker_cli import Docker
from tests.swarm.images import build_image
from tests.swarm.stores import PASSWORDS, Stores, stores

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def made(docker: Docker) -> Iterator[Stores]:
    with stores(docker) as made:
        yield made


@pytest.fixture(scope="module")
def image(made: Stores) -> str:
    return build_image(made.docker, "services/postgres/Dockerfile", "mt5-postgres:test")


@pytest.fixture(scope="module")
def running(made: Stores, image: str) -> str:
    container = made.postgres(image, "--env", "MONITORING_NETWORK=192.0.2.0/24")
    made.healthy(container)
    return container


def test_it_is_nobody_special_on_a_disk_that_is_read_only(made: Stores, running: str) -> None:
    assert made.docker("exec", running, "id", "-u") == "999"
    assert made.docker("inspect", "-f", "{{.HostConfig.ReadonlyRootfs}}", running) == "true"
    assert made.sql("SHOW data_checksums") == "on"
    assert made.sql("SHOW wal_level") == "replica"
    assert made.sql("SHOW fsync") == "on"


def test_each_role_is_what_it_should_be(made: Stores, running: str) -> None:
    rights = made.docker(
        *("exec", running, "psql", "-qAtc"),
        "SELECT string_agg(concat_ws(' ', rolname, rolsuper::int, rolcreaterole::int,"
        " rolreplication::int, rolbypassrls::int, rolcanlogin::int), E'\\n' ORDER BY rolname)"
        " FROM pg_roles WHERE rolname ~ '^(mt5|postgres)'",
    )
    assert rights.splitlines() == [
        "mt5_backup 0 0 1 0 1",
        "mt5_exporter 0 0 0 0 1",
        "mt5_monitor 0 0 0 0 0",
        "mt5_owner 0 1 0 0 1",
        "postgres 1 1 1 1 1",
    ]
    assert made.sql("SELECT pg_has_role('mt5_exporter', 'pg_monitor', 'usage')")
    assert made.sql("SELECT pg_has_role('mt5_exporter', 'mt5_monitor', 'usage')")
    assert made.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'mt5'") == (
        "mt5_owner"
    )


@pytest.mark.parametrize(
    ("role", "database"),
    [
        ("postgres", "postgres"),
        ("postgres", "mt5"),
        ("mt5_owner", "postgres"),
        ("mt5_exporter", "mt5"),  # from another network than its own
        ("mt5_backup", "postgres"),
    ],
)
def test_who_has_no_business_there_is_not_asked_for_a_password(
    made: Stores, running: str, role: str, database: str
) -> None:
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match=r"no pg_hba\.conf"):
        made.sql("SELECT 1", role, database)


def test_backups_may_do_what_barman_needs(made: Stores, running: str) -> None:
    assert made.sql("SELECT pg_switch_wal() IS NOT NULL", "mt5_backup")
    assert made.sql("SELECT current_setting('data_directory') IS NOT NULL", "mt5_backup")


def test_passwords_are_in_no_log_and_no_command(made: Stores, running: str) -> None:
    seen = made.log(running) + made.docker("inspect", running) + made.docker("top", running)
    seen += made.docker("exec", running, "cat", "/proc/1/environ", "/proc/1/cmdline")
    assert "database system is ready" in seen
    for role in PASSWORDS:
        assert made.password(role) not in seen


def test_a_changed_secret_counts_from_the_next_start(made: Stores, running: str) -> None:
    old = made.dsn()
    made.secret("mt5_owner_password", "a new one: ' \" \\ $HOME `id` %s")
    made.docker("restart", running)
    made.healthy(running)
    assert made.sql("SELECT current_user") == "mt5_owner"
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(asyncpg.connect(old))


def test_a_stop_ends_sessions_and_is_clean(made: Stores, running: str) -> None:
    async def stopped() -> None:
        connection = await asyncpg.connect(made.dsn())
        await asyncio.to_thread(made.docker, "stop", "--time", "60", running)
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
            await connection.execute("SELECT 1")

    asyncio.run(stopped())
    assert made.state(running)["ExitCode"] == 0
    made.docker("start", running)
    made.healthy(running)


def test_what_was_acknowledged_outlives_a_kill(made: Stores, running: str) -> None:
    made.sql("CREATE TABLE kept AS SELECT 1 AS n")
    made.docker("kill", "--signal", "KILL", running)
    made.docker("start", running)
    made.healthy(running)
    assert made.sql("SELECT n FROM kept") == 1


def test_two_servers_never_share_a_volume(made: Stores, running: str, image: str) -> None:
    second = made.run(
        "second",
        image,
        *("--tmpfs", "/var/run/postgresql", "--env", "LOCK_WAIT_S=0"),
        *("--volume", f"{made.volume('postgres')}:/var/lib/postgresql"),
    )
    assert made.ended(second) == 1
    assert "another server, or a restore, uses this volume" in made.log(second)
    assert made.sql("SELECT 1") == 1


def test_a_first_start_that_was_broken_off_is_made_anew(made: Stores, image: str) -> None:
    volume = made.volume("half")
    half = "/var/lib/postgresql/18/docker.unfinished"
    made.docker(
        *("run", "--rm", "--volume", f"{volume}:/var/lib/postgresql", "--entrypoint", "bash"),
        *(image, "-c", f"mkdir -p {half}/base && echo 18 > {half}/PG_VERSION"),
    )
    container = made.run(
        "half",
        image,
        *("--tmpfs", "/var/run/postgresql", "--volume", f"{volume}:/var/lib/postgresql"),
        *("--health-interval", "1s"),
        command=("-c", "shared_buffers=16MB"),
    )
    made.healthy(container)
    assert made.docker("exec", container, "ls", "/var/lib/postgresql/18") == "docker"


@pytest.mark.parametrize(
    ("secret", "complaint"),
    [
        (None, "the secret mt5_backup_password is missing"),
        ("", "is not one line of 12 or more"),
        ("short", "is not one line of 12 or more"),
        ("a long first line\nand a second one", "is not one line of 12 or more"),
    ],
)
def test_it_does_not_start_with_a_bad_secret(
    made: Stores, image: str, secret: str | None, complaint: str
) -> None:
    path = made.secrets_dir / "mt5_backup_password"
    good = path.read_text()
    path.unlink()
    if secret is not None:
        made.secret("mt5_backup_password", secret)
    container = made.run(
        "bad",
        image,
        *("--tmpfs", "/var/run/postgresql"),
        *("--volume", f"{made.volume('none')}:/var/lib/postgresql"),
    )
    try:
        assert made.ended(container) == 1
        assert complaint in made.log(container)
    finally:
        made.remove(container)
        made.secret("mt5_backup_password", good)

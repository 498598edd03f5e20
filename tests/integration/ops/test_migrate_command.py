"""`python -m ops migrate` on a cluster like a deployment's: the owner is no superuser."""

import asyncio
import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
from tests.integration.ops.test_rotate_keys import Rows
from typer.testing import CliRunner, Result

import ops.cli
from local_stack.embedded import EmbeddedPostgres
from mt5kit.secret import Secret
from mt5kit.state.postgres import Database
from mt5kit.state.postgres.roles import scram_verifier
from mt5kit.vault import KeyRing, Vault
from ops.migrating import head

ROLES = {
    "OWNER_DATABASE_URL": "mt5_owner",
    "DATABASE_URL": "mt5_app",
    "WORKER_DATABASE_URL": "mt5_worker",
    "KEYS_DATABASE_URL": "mt5_keys",
}


async def run_sql(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def store(dsn: str, vault: Vault, number: int) -> None:
    """An account under the active key of a vault."""
    connection = await asyncpg.connect(dsn)
    try:
        await Rows(connection).add(vault, number)
    finally:
        await connection.close()


async def user_of(dsn: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        return str(await connection.fetchval("SELECT current_user"))
    finally:
        await connection.close()


class Deployment:
    """A server, and the files that a deployment would give the command."""

    def __init__(self, server: EmbeddedPostgres, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.urls: dict[str, str] = {}
        for setting, role in ROLES.items():
            self.give(setting, role, f"first of {role}")

    def give(self, setting: str, role: str, password: str) -> None:
        place = f"/mt5?host={self.server.socket_dir}&port=5432"
        self.urls[setting] = f"postgresql://{role}:{quote(password, safe='')}@{place}"
        (self.directory / setting).write_text(self.urls[setting] + "\n")

    def run(self, *options: str, without: str | None = None, ring: bytes | None = None) -> Result:
        env = {f"{name}_FILE": str(self.directory / name) for name in ROLES if name != without}
        if ring is not None:
            (self.directory / "ring.json").write_bytes(ring)
            env["KEY_RING_FILE"] = str(self.directory / "ring.json")
        return CliRunner().invoke(ops.cli.app, ["migrate", *options], env=env)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(Path(tmp_path_factory.mktemp("migrate")), durable=False) as server:
        yield server


@pytest.fixture
def deployment(server: EmbeddedPostgres, tmp_path: Path) -> Deployment:
    """With an owner and an empty database."""
    roles = "mt5_app, mt5_worker, mt5_keys, mt5_monitor, mt5_backup, mt5_owner"
    server.start()
    asyncio.run(
        run_sql(
            server.dsn(),
            "DROP DATABASE IF EXISTS mt5",
            f"DROP ROLE IF EXISTS {roles}",
            "CREATE ROLE mt5_owner LOGIN CREATEROLE PASSWORD 'first of mt5_owner'",
            "CREATE DATABASE mt5 OWNER mt5_owner",
        )
    )
    return Deployment(server, tmp_path)


def test_the_first_run_makes_everything_and_the_second_nothing(deployment: Deployment) -> None:
    first = deployment.run()
    assert first.exit_code == 0, first.output
    assert first.output.splitlines()[-4:] == [
        f"applied {head()}: Backups read which keys of the vault are in use.",
        "mt5_keys: password set",
        "mt5_app: password set",
        "mt5_worker: password set",
    ]
    for setting, role in ROLES.items():
        assert asyncio.run(user_of(deployment.urls[setting])) == role
    second = deployment.run()
    assert second.exit_code == 0
    assert second.output.splitlines() == [
        f"the schema is at {head()}: nothing to apply",
        "mt5_keys: password as it was",
        "mt5_app: password as it was",
        "mt5_worker: password as it was",
    ]


def test_a_password_that_changed_is_set_and_never_shown(deployment: Deployment) -> None:
    assert deployment.run().exit_code == 0
    old = deployment.urls["WORKER_DATABASE_URL"]
    asyncio.run(
        run_sql(
            deployment.server.dsn(),
            "ALTER SYSTEM SET log_statement = 'all'",
            "SELECT pg_reload_conf()",
        )
    )
    deployment.give("WORKER_DATABASE_URL", "mt5_worker", "second: @/ '\"\\ secret")
    done = deployment.run()
    assert "mt5_worker: password set" in done.output.splitlines()
    assert "mt5_app: password as it was" in done.output.splitlines()
    assert asyncio.run(user_of(deployment.urls["WORKER_DATABASE_URL"])) == "mt5_worker"
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(user_of(old))
    log = deployment.server.log_file.read_text()
    assert "ALTER ROLE mt5_worker PASSWORD 'SCRAM-SHA-256$4096:" in log
    assert "second" not in log + done.output


def test_a_ring_that_would_lock_accounts_out_changes_no_service(deployment: Deployment) -> None:
    ring = KeyRing.generate("old")
    first = deployment.run(ring=ring.dump())
    assert first.exit_code == 0, first.output
    asyncio.run(store(deployment.server.dsn("mt5"), Vault(ring), 1))
    # Altered, as a ring's fault is not.
    asyncio.run(store(deployment.server.dsn("mt5"), Vault(KeyRing.generate("old")), 2))
    deployment.give("DATABASE_URL", "mt5_app", "second of mt5_app")
    # A key of the same id, made on the same day, is another one.
    for other in ("another", "old"):
        refused = deployment.run(ring=KeyRing.generate(other).dump())
        assert refused.exit_code == 1
        assert "lacks: 2 under 'old'" in refused.output
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(user_of(deployment.urls["DATABASE_URL"]))
    more = deployment.run(ring=ring.with_key("new", active=True).dump())
    assert "mt5_app: password set" in more.output.splitlines()


def test_a_ring_that_is_none_is_an_error(deployment: Deployment) -> None:
    done = deployment.run(ring=b'{"active": "x", "keys": {}}')
    assert (done.exit_code, "is not among the keys" in done.output) == (1, True)


@pytest.mark.parametrize("setting", ROLES)
def test_a_url_of_another_user_is_refused(deployment: Deployment, setting: str) -> None:
    deployment.give(setting, "postgres", "top secret")
    done = deployment.run()
    assert done.exit_code == 1
    assert done.output == f"error: {setting} is of another user than {ROLES[setting]}\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("postgresql://mt5_app@/mt5", "DATABASE_URL needs a password of mt5_app, in ASCII"),
        ("postgresql://mt5_app:gehe%C3%ADm@/mt5", "DATABASE_URL needs a password of mt5_app"),
        ("mysql://mt5_app:hidden@/mt5", "DATABASE_URL is not a postgresql:// URL"),
        ("postgresql://mt5_app:hidden@[/mt5", "DATABASE_URL is malformed"),
    ],
)
def test_a_url_that_cannot_be_is_refused(deployment: Deployment, text: str, complaint: str) -> None:
    (deployment.directory / "DATABASE_URL").write_text(text)
    done = deployment.run()
    assert done.exit_code == 1
    assert complaint in done.output
    assert "hidden" not in done.output


def test_what_is_missing_is_named(deployment: Deployment) -> None:
    assert deployment.run(without="DATABASE_URL").output == "error: say DATABASE_URL_FILE\n"
    (deployment.directory / "KEYS_DATABASE_URL").unlink()
    done = deployment.run()
    assert done.exit_code == 1
    assert done.output.rstrip().endswith("KEYS_DATABASE_URL: No such file or directory")


def test_it_waits_for_a_server_that_starts(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.server.stop()
    asked = threading.Event()
    ping = Database.ping

    async def counted(database: Database) -> None:
        try:
            await ping(database)
        finally:
            asked.set()

    monkeypatch.setattr(Database, "ping", counted)
    results: list[Result] = []
    runner = threading.Thread(target=lambda: results.append(deployment.run("--wait", "60")))
    runner.start()
    assert asked.wait(60)
    deployment.server.start()
    runner.join(60)
    assert results[0].exit_code == 0, results[0].output


def test_a_server_that_stays_away_is_an_error(deployment: Deployment) -> None:
    deployment.server.stop()
    done = deployment.run("--wait", "0")
    assert (done.exit_code, done.output) == (1, "error: the database does not answer\n")


def test_an_owner_that_is_not_let_in_is_an_error_at_once(deployment: Deployment) -> None:
    deployment.give("OWNER_DATABASE_URL", "mt5_owner", "a wrong one")
    done = deployment.run("--wait", "3600")
    assert done.exit_code == 1
    assert 'password authentication failed for user "mt5_owner"' in done.output
    assert "a wrong one" not in done.output


def test_a_verifier_is_what_the_server_makes_of_a_password() -> None:
    # The example of RFC 7677.
    made = scram_verifier(Secret("pencil"), base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    assert made == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert scram_verifier(Secret("pencil")) != scram_verifier(Secret("pencil"))
    for password in ("", "gehe\u00edm"):
        with pytest.raises(ValueError, match="ASCII"):
            scram_verifier(Secret(password))

"""Rotating keys while services run: every row moved, none lost, what cannot be opened untouched."""

import asyncio
import json
import stat
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from tests.named_servers import Dns
from typer.testing import CliRunner

import ops.cli
from local_stack.embedded import RoleDsns
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.secret import Secret
from mt5kit.state.postgres import (
    AccountStore,
    AuditStore,
    Database,
    DatabaseUnavailable,
    KeyStore,
    WorkerStore,
)
from mt5kit.vault import AccountBinding, KeyRing, KeyRingFile, KeyRingInvalid, Vault
from ops.ring_file import RingFile, RingFileBusy, RingFileFixed
from ops.rotation import Request, Rotated, Rotation, RotationRefused

FASTER = 20
"""A second of a ring's file, in these tests, is a twentieth of one."""
SETTLE_S = 2.0 / FASTER


def clock() -> float:
    return time.monotonic() * FASTER


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ring.json"
    path.write_bytes(KeyRing.generate("old").dump())
    path.chmod(0o640)
    return path


@pytest.fixture
async def app_database(postgres: RoleDsns) -> AsyncIterator[Database]:
    database = await Database.open(postgres.app, application_name="test-app")
    yield database
    await database.aclose()


@pytest.fixture
async def worker_store(postgres: RoleDsns) -> AsyncIterator[WorkerStore]:
    database = await Database.open(postgres.worker, application_name="test-worker")
    yield WorkerStore(database)
    await database.aclose()


@pytest.fixture
async def database(postgres: RoleDsns) -> AsyncIterator[Database]:
    database = await Database.open(postgres.keys, application_name="test-keys")
    yield database
    await database.aclose()


@pytest.fixture
async def rows(owner: asyncpg.Connection) -> "Rows":
    await owner.execute("DELETE FROM accounts")
    return Rows(owner)


class Rows:
    """The accounts as their table holds them."""

    def __init__(self, owner: asyncpg.Connection) -> None:
        self.owner = owner
        self.user = uuid4()

    async def add(self, vault: Vault, number: int) -> int:
        uuid = uuid4()
        sealed = vault.seal(Secret(f"pass-{number}"), AccountBinding(uuid, number, "Demo"))
        row_id: int = await self.owner.fetchval(
            "INSERT INTO accounts (uuid, account_id, user_id, login, server, encrypted_password,"
            " wrapped_key, encryption_key_id) VALUES ($1, $2, $3, $4, 'Demo', $5, $6, $7)"
            " RETURNING id",
            *(uuid, f"a-{number}", self.user, number),
            *(sealed.ciphertext, sealed.wrapped_key, sealed.key_id),
        )
        return row_id

    async def keys(self) -> set[str]:
        return {row[0] for row in await self.owner.fetch("SELECT encryption_key_id FROM accounts")}

    async def whole(self, *ids: int) -> list[asyncpg.Record]:
        return await self.owner.fetch("SELECT * FROM accounts WHERE id = ANY ($1)", ids)

    async def audit(self) -> dict[str, object]:
        row = await self.owner.fetchrow("SELECT * FROM audit_log ORDER BY id DESC LIMIT 1")
        assert row is not None
        assert (row["action"], row["target"]) == ("keys.rotate", "key-ring")
        return {"actor": row["actor"], **json.loads(row["detail"])}


Rotate = Callable[..., "asyncio.Future[Rotated]"]


@pytest.fixture
def rotate(path: Path, database: Database) -> Callable[..., object]:
    async def rotated(
        store: KeyStore | None = None, settle_s: float = SETTLE_S, **request: object
    ) -> Rotated:
        with RingFile.held(path) as file:
            rotation = Rotation(
                file,
                store or KeyStore(database),
                AuditStore(database),
                settle_s=settle_s,
                drain_s=0.0,
            )
            return await rotation.run(Request(**request))  # type: ignore[arg-type]  # as named

    return rotated


async def test_services_save_and_open_all_the_while_and_every_row_moves(
    path: Path, rows: Rows, rotate: Rotate, app_database: Database, worker_store: WorkerStore
) -> None:
    store, service = AccountStore(app_database), Vault(KeyRingFile(path, clock))
    reader = Vault(KeyRingFile(path, clock))
    for number in range(1, 231):
        await rows.add(service, number)
    saved: dict[int, str] = {}
    ended = asyncio.Event()

    async def save() -> None:
        count = 0
        while not ended.is_set():
            count += 1
            number = 1 + count * 7 % 230
            secret = Secret(f"new-{count}")
            identity = AccountIdentity(number, "Demo")
            seal = partial(service.seal, secret)
            await store.save_login(rows.user, f"a-{number}", identity, seal)
            saved[number] = f"new-{count}"

    async def read() -> int:
        opened = 0
        while not ended.is_set():
            login = (await worker_store.credentials(f"a-{1 + opened * 11 % 230}")).login
            assert reader.open(login.sealed, login.binding).reveal().startswith(("pass-", "new-"))
            opened += 1
        return opened

    saving, reading = asyncio.create_task(save()), asyncio.create_task(read())
    # Time enough for a save that a busy machine delays.
    done = await rotate(settle_s=0.5, new_key="new")
    ended.set()
    await saving
    assert await reading > 0
    assert saved
    assert done.complete
    assert done.added == "new"
    assert await rows.keys() == {"new"}
    assert 0 < done.rows.rewrapped <= 230 + len(saved)
    without_old = Vault(KeyRing.load(path).without_key("old"))
    for number in range(1, 231):
        login = (await worker_store.credentials(f"a-{number}")).login
        password = without_old.open(login.sealed, login.binding).reveal()
        assert password == saved.get(number, f"pass-{number}")
    assert (await rows.audit())["added"] == "new"


async def test_a_row_saved_under_the_old_key_during_the_first_walk_moves_in_the_second(
    path: Path, rows: Rows, rotate: Rotate, database: Database
) -> None:
    late = Vault(KeyRing.load(path))

    class Store(KeyStore):
        walks = 0

        async def not_under(self, key_id: str, *, after: int, most: int) -> tuple:  # type: ignore[type-arg]  # what it gives
            found = await super().not_under(key_id, after=after, most=most)
            if not found:
                self.walks += 1
                if self.walks == 1:
                    await rows.add(late, 2)
            return found

    await rows.add(late, 1)
    store = Store(database)
    done = await rotate(store, new_key="new")
    assert (done.rows.rewrapped, done.rows.late, store.walks) == (2, 0, 3)
    assert await rows.keys() == {"new"}


async def test_a_service_that_does_not_follow_the_ring_is_told_of(
    path: Path, rows: Rows, rotate: Rotate, database: Database
) -> None:
    stubborn = Vault(KeyRing.load(path))

    class Store(KeyStore):
        numbers = 0

        async def not_under(self, key_id: str, *, after: int, most: int) -> tuple:  # type: ignore[type-arg]  # what it gives
            if after == 0:
                self.numbers += 1
                await rows.add(stubborn, self.numbers)
            return await super().not_under(key_id, after=after, most=most)

    done = await rotate(Store(database), new_key="new")
    assert not done.complete
    assert done.rows.late == 1


async def test_new_credentials_that_come_in_between_are_not_overwritten(
    path: Path, rows: Rows, database: Database, app_database: Database
) -> None:
    vault, store = Vault(KeyRing.load(path)), KeyStore(database)
    await rows.add(vault, 1)
    (row,) = await store.not_under("new", after=0, most=10)
    await AccountStore(app_database).save_login(
        rows.user,
        "a-1",
        AccountIdentity(1, "Demo"),
        lambda binding: vault.seal(Secret("other"), binding),
    )
    before = await rows.whole(row.id)
    assert await store.replace([(row, vault.rewrap(row.sealed, row.binding))]) == 0
    assert await rows.whole(row.id) == before


async def test_rows_that_cannot_be_opened_are_named_and_untouched(
    path: Path, rows: Rows, rotate: Rotate
) -> None:
    vault, lost = Vault(KeyRing.load(path)), Vault(KeyRing.generate("lost"))
    good = await rows.add(vault, 1)
    missing = [await rows.add(lost, number) for number in (2, 3)]
    broken = await rows.add(vault, 4)
    await rows.owner.execute(
        "UPDATE accounts SET wrapped_key = set_byte(wrapped_key, 20, 255 - get_byte(wrapped_key,"
        " 20)) WHERE id = $1",
        broken,
    )
    before = await rows.whole(*missing, broken)
    done = await rotate(new_key="new")
    assert await rows.whole(*missing, broken) == before
    assert not done.complete
    assert done.rows.missing == {"lost": tuple(missing)}
    assert (done.rows.broken, done.rows.rewrapped, done.rows.late) == ((broken,), 1, 0)
    (row,) = await rows.whole(good)
    assert row["encryption_key_id"] == "new"
    told = await rows.audit()
    assert (told["missing"], told["broken"], told["rewrapped"]) == ({"lost": 2}, 1, 1)
    with pytest.raises(RotationRefused, match="another key of the id 'lost'"):
        await rotate(new_key="lost")
    kept = await rotate(keep_active=True, remove_key="old")
    assert kept.kept_because == "1 rows are under it"
    assert KeyRing.load(path).ids == ("new", "old")


async def test_a_key_leaves_the_ring_once_no_row_is_under_it(
    path: Path, rows: Rows, rotate: Rotate
) -> None:
    await rows.add(Vault(KeyRing.load(path)), 1)
    ring = path.read_bytes()
    for key_id, complaint in (("old", "is the active one"), ("absent", "has no key 'absent'")):
        with pytest.raises(RotationRefused, match=complaint):
            await rotate(keep_active=True, remove_key=key_id)
    assert path.read_bytes() == ring
    done = await rotate(new_key="new", remove_key="old", actor="op")
    assert (done.complete, done.removed) == (True, "old")
    assert KeyRing.load(path).ids == ("new",)
    told = await rows.audit()
    assert (told["actor"], told["active"], told["removed"]) == ("op", "new", "old")
    assert await rows.keys() == {"new"}


async def test_a_key_comes_back_if_somebody_seals_under_it_still(
    path: Path, rows: Rows, rotate: Rotate, database: Database
) -> None:
    stubborn = Vault(KeyRing.load(path))

    class Store(KeyStore):
        async def counts(self) -> dict[str, int]:
            if "old" not in KeyRing.load(path).ids:
                await rows.add(stubborn, 1)
            return await super().counts()

    done = await rotate(Store(database), new_key="new", remove_key="old")
    assert (done.complete, done.removed) == (False, None)
    assert done.kept_because is not None
    assert KeyRing.load(path).ids == ("new", "old")


async def test_a_key_that_was_added_before_becomes_active_and_back(
    path: Path, rows: Rows, rotate: Rotate
) -> None:
    await rows.add(Vault(KeyRing.load(path)), 1)
    with RingFile.held(path) as file:
        file.replace(file.read().with_key("new", active=False))
    done = await rotate(new_key="new")
    assert (done.added, done.rows.active, done.rows.rewrapped) == (None, "new", 1)
    again = await rotate(new_key="new")
    assert (again.rows.rewrapped, again.rows.current) == (0, 1)
    back = await rotate(new_key="old")
    assert (back.rows.active, back.rows.rewrapped) == ("old", 1)
    dated = [await rotate() for _ in range(2)]
    assert len({done.added for done in dated} - {None}) == 2


async def test_a_ring_is_not_touched_while_the_database_is_away(path: Path, tmp_path: Path) -> None:
    ring = path.read_bytes()
    nowhere = await Database.open(f"postgresql://u:p@/x?host={tmp_path}", application_name="x")
    with RingFile.held(path) as file, pytest.raises(DatabaseUnavailable):
        await Rotation(file, KeyStore(nowhere), AuditStore(nowhere)).run(Request())
    await nowhere.aclose()
    assert path.read_bytes() == ring


def test_a_ring_file_keeps_its_mode_its_link_and_nothing_beside_it(
    path: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(path)
    with RingFile.held(link) as file:
        file.replace(file.read().with_key("new", active=True))
        with pytest.raises(RingFileBusy), RingFile.held(path):
            pass
    assert link.is_symlink()
    assert KeyRing.load(path).active == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(place.name for place in tmp_path.iterdir()) == ["link.json", "ring.json"]
    with RingFile.held(path):
        pass


def test_a_ring_file_that_cannot_be_replaced_stays_as_it_is(tmp_path: Path) -> None:
    # A directory cannot be replaced by a file, not even by root.
    (tmp_path / "ring.json").mkdir()
    with (
        RingFile.held(tmp_path / "ring.json") as file,
        pytest.raises(RingFileFixed, match="cannot be replaced"),
    ):
        file.replace(KeyRing.generate())
    assert [place.name for place in tmp_path.iterdir()] == ["ring.json"]
    with pytest.raises(RingFileFixed), RingFile.held(tmp_path / "absent" / "ring.json"):
        pass


# -- the command ----------------------------------------------------------------------------------


async def _add(owner_dsn: str, vault: Vault, number: int) -> int:
    owner = await asyncpg.connect(owner_dsn)
    try:
        if number == 1:
            await owner.execute("DELETE FROM accounts")
        return await Rows(owner).add(vault, number)
    finally:
        await owner.close()


@pytest.fixture
def data_dir(tmp_path: Path, postgres: RoleDsns) -> Path:
    """What `make run` leaves in its data directory."""
    (tmp_path / "key-ring.json").write_bytes(KeyRing.generate("old").dump())
    (tmp_path / "keys-database-url.secret").write_text(postgres.keys)
    return tmp_path


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    for name in ("KEY_RING_FILE", "KEYS_DATABASE_URL", "KEYS_DATABASE_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ops.cli, "Rotation", partial(Rotation, settle_s=0.0, drain_s=0.0))

    def run(*options: object) -> tuple[int, str]:
        done = CliRunner().invoke(ops.cli.app, [str(option) for option in options])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    return run


Cli = Callable[..., tuple[int, str]]


def test_the_command_beside_a_local_run(cli: Cli, data_dir: Path, postgres: RoleDsns) -> None:
    vault, lost = Vault(KeyRing.load(data_dir / "key-ring.json")), Vault(KeyRing.generate("lost"))
    asyncio.run(_add(postgres.owner, vault, 1))
    code, output = cli("add-key", "--data-dir", data_dir, "--key-id", "new")
    assert (code, "old stays active" in output) == (0, True)
    code, output = cli("add-key", "--data-dir", data_dir, "--key-id", "new")
    assert (code, "has a key 'new' already" in output) == (1, True)
    stuck = asyncio.run(_add(postgres.owner, lost, 2))
    code, output = cli("rotate-keys", "--data-dir", data_dir, "--new-key", "new")
    assert code == 1
    assert "active key: new" in output
    assert "1 rows moved to it, 0 were under it already" in output
    assert f"missing key 'lost' (accounts.id {stuck})" in output
    assert "://" not in output


def test_a_ring_for_a_deployment_changes_key_by_key(cli: Cli, data_dir: Path) -> None:
    path = data_dir / "key-ring.json"
    ring = ("--key-ring", path)
    assert cli("remove-key", "old", *ring)[0] == 1
    assert cli("activate-key", "new", *ring)[0] == 1
    assert KeyRing.load(path).ids == ("old",)
    assert cli("add-key", *ring, "--key-id", "new")[0] == 0
    assert KeyRing.load(path).active == "old"
    assert cli("activate-key", "new", *ring)[0] == 0
    assert KeyRing.load(path).active == "new"
    code, output = cli("remove-key", "new", *ring)
    assert (code, "active" in output) == (1, True)
    code, output = cli("remove-key", "old", *ring)
    assert (code, "key old is out of the ring" in output) == (0, True)
    assert cli("remove-key", "old", *ring)[0] == 1
    assert KeyRing.load(path).ids == ("new",)


def test_the_command_says_what_it_lacks(
    cli: Cli, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = cli("rotate-keys", "--data-dir", tmp_path / "absent")
    assert (code, "is `make run` running?" in output) == (1, True)
    code, output = cli("rotate-keys", "--key-ring", data_dir / "key-ring.json")
    assert (code, "say which database" in output) == (1, True)
    monkeypatch.setenv("KEYS_DATABASE_URL_FILE", str(data_dir / "keys-database-url.secret"))
    code, output = cli("rotate-keys", "--data-dir", data_dir)
    assert (code, "say which key ring" in output) == (1, True)
    monkeypatch.delenv("KEYS_DATABASE_URL_FILE")
    code, output = cli("rotate-keys", "--new-key", "x", "--no-new-key")
    assert (code, "exclude each other" in output) == (2, True)
    (data_dir / "keys-database-url.secret").write_text("nonsense://s3cr3t@")
    code, output = cli("rotate-keys", "--data-dir", data_dir)
    assert (code, "s3cr3t" in output) == (1, False)


def test_the_command_speaks_to_no_database_outside_the_networks(
    cli: Cli, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Dns({"postgres": ["203.0.113.9"]}).rule(monkeypatch)
    (data_dir / "keys-database-url.secret").write_text("postgresql://u:s3cr3t@postgres/x")
    ring = (data_dir / "key-ring.json").read_bytes()
    for networks, said in (
        ('["10.77.2.0/24"]', "postgres resolves outside the permitted networks"),
        ('["everywhere"]', "SERVICES_NETWORKS"),
    ):
        monkeypatch.setenv("SERVICES_NETWORKS", networks)
        code, output = cli("rotate-keys", "--data-dir", data_dir)
        # Lines are broken where the terminal ends.
        assert (code, said in " ".join(output.split())) == (1, True), output
        assert "s3cr3t" not in output
    assert (data_dir / "key-ring.json").read_bytes() == ring


def test_a_bad_key_id_changes_nothing(cli: Cli, data_dir: Path) -> None:
    ring = (data_dir / "key-ring.json").read_bytes()
    code, output = cli("rotate-keys", "--data-dir", data_dir, "--new-key", "no good")
    assert (code, "a key id is not" in output) == (1, True)
    assert (data_dir / "key-ring.json").read_bytes() == ring
    (data_dir / "key-ring.json").write_text("{}")
    with pytest.raises(KeyRingInvalid):
        KeyRing.load(data_dir / "key-ring.json")
    code, output = cli("rotate-keys", "--data-dir", data_dir)
    assert (code, "must be an object" in output) == (1, True)
    assert (data_dir / "key-ring.json").read_text() == "{}"

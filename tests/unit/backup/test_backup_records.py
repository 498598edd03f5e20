"""What the backup writes down: timelines, keys, how things stand; and what it lets go."""

import datetime as dt
import json
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.barman import Span
from backup.commands import CommandFailed, Commands
from backup.files import dated, name_of, prune, put
from backup.key_lists import KeyLists, RingUnusable, check_ring, ring_ids
from backup.metrics import serve_metrics
from backup.places import address_of
from backup.scheduler import full_due
from backup.settings import Remote, Settings, SettingWrong
from backup.status import Status, faults, looks
from backup.timelines import HistoryMissing, Timelines

NOON = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)


def after(**passed: float) -> dt.datetime:
    return NOON + dt.timedelta(**passed)


def test_a_timeline_is_written_down_when_it_changes(tmp_path: Path) -> None:
    timelines = Timelines(tmp_path, lambda _: None)
    assert timelines.at(NOON) is None
    assert not timelines.note(1, NOON)  # the first is no change
    assert not timelines.note(1, after(minutes=1))
    assert timelines.note(2, after(minutes=5), "1\t0/5000000\tbefore noon\n")
    # Somebody put the old directory back.
    assert timelines.note(1, after(minutes=9))
    assert [(one.timeline, one.since) for one in timelines.periods()] == [
        (1, NOON),
        (2, after(minutes=5)),
        (1, after(minutes=9)),
    ]
    live = {minutes: timelines.at(after(minutes=minutes)) for minutes in (-1, 0, 4, 5, 8, 9, 99)}
    assert [found and found.timeline for found in live.values()] == [1, 1, 1, 2, 2, 1, 1]


def test_a_history_is_the_servers_own_or_what_the_restore_kept(tmp_path: Path) -> None:
    sent: dict[int, str] = {}
    timelines = Timelines(tmp_path, sent.get)
    assert timelines.ancestors(1) == {}
    with pytest.raises(HistoryMissing):
        timelines.ancestors(3)
    timelines.note(3, NOON, "1\t0/5000000\tbefore noon\n\n2\t1/6000028\tno recovery target\n")
    assert timelines.ancestors(3) == {1: 0x5000000, 2: 0x106000028}
    sent[3] = "2\t1/7\tx\n"
    assert timelines.ancestors(3) == {2: 0x100000007}


def test_keys_are_written_down_when_they_change_and_each_hour(tmp_path: Path) -> None:
    lists = KeyLists(tmp_path)
    assert lists.at(NOON) is None
    for minutes, ids in ((0, ["a"]), (1, ["a"]), (2, ["a", "b"]), (30, ["b"]), (89, ["b"])):
        lists.note(ids, after(minutes=minutes))
    lists.note(["b"], after(minutes=90))
    assert len(list((tmp_path / "keys").glob("*.json"))) == 4
    found = [lists.at(after(minutes=minutes)) for minutes in (-1, 0, 1, 2, 29, 30, 600)]
    assert found == [None, ["a"], ["a"], ["a", "b"], ["a", "b"], ["b"], ["b"]]
    lists.prune(after(minutes=60))
    assert len(list((tmp_path / "keys").glob("*.json"))) == 1


def test_a_ring_must_have_every_key(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    path.write_text(json.dumps({"active": "b", "keys": {"a": "c2VjcmV0", "b": "aGlkZGVu"}}))
    assert ring_ids(path) == {"a", "b"}
    check_ring({"a", "b"}, ["b"], "of noon")
    check_ring({"a"}, [], "of noon")
    with pytest.raises(RingUnusable, match="lacks c, d, which passwords of noon are under"):
        check_ring({"a", "b"}, ["a", "c", "d"], "of noon")


@pytest.mark.parametrize("text", [None, "", "secret-key", "[]", "{}", '{"keys": 1}', "\xff"])
def test_what_is_no_ring_is_not_shown(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ring"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RingUnusable) as unusable:
        ring_ids(path)
    assert "secret" not in str(unusable.value)


def backup(began: dt.datetime) -> Span:
    return Span(began, began + dt.timedelta(minutes=5))


@pytest.mark.parametrize(
    ("began", "at", "due"),
    [
        (None, NOON, True),
        (after(hours=-9.5), NOON, False),  # at 02:30
        (after(hours=-10.5), NOON, True),  # at 01:30
        (after(hours=-10), NOON, False),  # at 02:00
        (after(hours=-9.5), after(hours=13.9), False),  # the next day at 01:54
        (after(hours=-9.5), after(hours=14), True),  # at 02:00
    ],
)
def test_a_full_backup_is_due_once_a_day(
    began: dt.datetime | None, at: dt.datetime, due: bool
) -> None:
    assert full_due(None if began is None else backup(began), at, 2) is due


WELL = Status(NOON, receiving=True, full=NOON, snapshot=NOON, copied=None)
REMOTE = Settings(remote=Remote("bucket", "mt5", None, "eu"))


@pytest.mark.parametrize(
    ("status", "at", "said"),
    [
        (WELL, NOON, []),
        (WELL, after(minutes=4.9), []),
        (WELL, after(minutes=5.1), ["scheduler does not look"]),
        (None, NOON, ["scheduler does not look"]),
        (Status(NOON, False, NOON, NOON, None), NOON, ["log of Postgres is not being received"]),
        (Status(NOON, True, after(hours=-25.9), NOON, None), NOON, []),
        (Status(NOON, True, after(hours=-26.1), NOON, None), NOON, ["within 26 h: the last was"]),
        (Status(NOON, True, None, NOON, None), NOON, ["within 26 h: there was none"]),
        (Status(NOON, True, NOON, after(minutes=-19.9), None), NOON, []),
        (Status(NOON, True, NOON, after(minutes=-20.1), None), NOON, ["Redis within 20 min"]),
        (Status(NOON, False, None, None, None), NOON, ["received", "26 h", "Redis"]),
    ],
)
def test_the_health_check_says_what_fails(
    status: Status | None, at: dt.datetime, said: list[str]
) -> None:
    found = faults(status, at, Settings())
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


def test_a_second_place_counts_where_there_is_one(tmp_path: Path) -> None:
    assert "s3://bucket/mt5 is not up to date: there was none" in faults(WELL, NOON, REMOTE)
    copied = Status(NOON, receiving=True, full=NOON, snapshot=NOON, copied=after(minutes=-59))
    assert faults(copied, NOON, REMOTE) == []
    assert faults(copied, after(minutes=2), REMOTE) != []
    copied.write(tmp_path / "status.json")
    assert Status.read(tmp_path / "status.json") == copied
    assert Status.read(tmp_path / "nothing") is None


@given(st.lists(st.integers(0, 100), unique=True), st.integers(0, 100))
def test_the_newest_stays_however_old_it_is(
    tmp_path_factory: pytest.TempPathFactory, days: list[int], limit: int
) -> None:
    directory = tmp_path_factory.mktemp("dated")
    (directory / "notes.rdb").touch()
    for day in days:
        put(directory / f"{name_of(after(days=-day))}.rdb", "")
    prune(directory, ".rdb", after(days=-limit))
    left = [round((NOON - at).total_seconds() / 86_400) for at, _ in dated(directory, ".rdb")]
    assert left == sorted({day for day in days if day <= limit or day == min(days)}, reverse=True)
    assert (directory / "notes.rdb").exists()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"BACKUP_HOUR": "24"}, "BACKUP_HOUR must be a number from 0 to 23"),
        ({"SNAPSHOT_S": "soon"}, "SNAPSHOT_S must be a number"),
        ({"KEEP_DAYS": "-1"}, "KEEP_DAYS"),
        ({"SERVICES_NETWORKS": "10.0.0.0/8"}, "SERVICES_NETWORKS must be a JSON list"),
        ({"SERVICES_NETWORKS": '["10.0.0.1/8"]'}, "SERVICES_NETWORKS must be a JSON list"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingWrong, match=complaint):
        Settings.from_environment(given)


def test_settings_come_from_the_environment() -> None:
    assert Settings.from_environment({}) == Settings()
    made = Settings.from_environment(
        {"BACKUP_HOUR": "5", "S3_BUCKET": "b", "S3_PREFIX": "/p/", "S3_ENDPOINT_URL": "https://s"}
    )
    assert made.hour == 5
    assert made.remote == Remote("b", "p", "https://s", "us-east-1")
    assert made.remote.url == "s3://b/p"


def test_a_name_that_leads_outside_is_not_followed() -> None:
    inside = Settings.from_environment({"SERVICES_NETWORKS": '["127.0.0.0/8", "::1/128"]'})
    assert address_of("localhost", 6379, inside.networks) in {"127.0.0.1", "::1"}
    elsewhere = Settings.from_environment({"SERVICES_NETWORKS": '["10.77.2.0/24"]'})
    with pytest.raises(CommandFailed, match=r"localhost leads to .*, outside the services"):
        address_of("localhost", 6379, elsewhere.networks)
    with pytest.raises(CommandFailed, match=r"no-such-host\.invalid: "):
        address_of("no-such-host.invalid", 6379, elsewhere.networks)
    # Without networks the program looks it up itself.
    assert address_of("no-such-host.invalid", 6379, ()) == "no-such-host.invalid"


@pytest.mark.parametrize("text", [None, "", "one\ntwo"])
def test_a_secret_is_one_line(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "s").write_text(text)
    with pytest.raises(SettingWrong, match="the secret s"):
        Settings(secrets=tmp_path).secret("s")
    (tmp_path / "s").write_text("a password\n")
    assert Settings(secrets=tmp_path).secret("s") == "a password"


def test_a_password_is_escaped_and_private(tmp_path: Path) -> None:
    settings = Settings(secrets=tmp_path, private=tmp_path / "private")
    with pytest.raises(SettingWrong, match="mt5_backup_password: No such file"):
        Commands(settings, login=True)
    (tmp_path / "mt5_backup_password").write_text("a:b\\c\n")
    commands = Commands(settings, login=True)
    file = settings.private / "pgpass"
    assert file.read_text() == "*:*:*:mt5_backup:a\\:b\\\\c\n"
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandFailed, match="sh: one two"):
        commands("sh", "-c", "echo one >&2; echo two >&2; exit 3")
    with pytest.raises(CommandFailed, match="no-such-program: No such file"):
        commands("no-such-program")
    with pytest.raises(CommandFailed, match="no end within"):
        commands("sleep", "60", timeout_s=0.05)


def test_another_start_is_for_a_scheduler_that_has_died_and_for_nothing_else() -> None:
    missing = Status(NOON, receiving=False, full=None, snapshot=None, copied=None)
    assert looks(missing, after(minutes=4.9), REMOTE)
    assert not looks(missing, after(minutes=5.1), REMOTE)
    assert not looks(None, NOON, REMOTE)


def test_prometheus_is_told_of_what_there_has_been(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    server = serve_metrics(file, port=0)
    place = f"http://127.0.0.1:{server.server_port}/metrics"
    assert httpx.get(place, trust_env=False).text == ""
    Status(NOON, receiving=True, full=after(hours=-1), snapshot=None, copied=None).write(file)
    lines = httpx.get(place, trust_env=False).text.splitlines()
    server.shutdown()
    server.server_close()
    samples = dict(line.split() for line in lines if not line.startswith("#"))
    assert {name: float(value) for name, value in samples.items()} == {
        "mt5_backup_last_look_timestamp_seconds": NOON.timestamp(),
        "mt5_backup_last_full_timestamp_seconds": after(hours=-1).timestamp(),
        "mt5_backup_receiving": 1.0,
    }

"""A vault that follows its key ring's file."""

import os
from pathlib import Path
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from mt5kit.key_ring import RING_CHECK_S
from mt5kit.secret import Secret
from mt5kit.vault import (
    AccountBinding,
    KeyMissing,
    KeyRing,
    KeyRingFile,
    KeyRingInvalid,
    Sealed,
    Vault,
)

BINDING = AccountBinding(UUID(int=7), 5_000_001, "Demo-Server")
OLD = KeyRing.generate("old")
BOTH = OLD.with_key("new", active=True)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ring.json"
    path.write_bytes(OLD.dump())
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(path: Path, clock: Clock) -> KeyRingFile:
    return KeyRingFile(path, clock)


def put(path: Path, content: bytes) -> None:
    """Another file in its place, as a rotation puts it."""
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(content)
    fresh.rename(path)


def sealed_by(ring: KeyRing) -> Sealed:
    return Vault(ring).seal(Secret("geheim"), BINDING)


def test_a_new_key_is_written_under_after_a_second(
    path: Path, clock: Clock, file: KeyRingFile
) -> None:
    vault = Vault(file)
    put(path, BOTH.dump())
    clock.now += RING_CHECK_S - 0.01
    assert vault.seal(Secret("x"), BINDING).key_id == "old"
    clock.now += 0.02
    assert vault.seal(Secret("x"), BINDING).key_id == "new"
    assert vault.open(sealed_by(OLD), BINDING) == Secret("geheim")


def test_what_another_process_sealed_under_a_new_key_opens_at_once(
    path: Path, file: KeyRingFile
) -> None:
    vault = Vault(file)
    put(path, BOTH.dump())
    assert vault.open(sealed_by(BOTH), BINDING) == Secret("geheim")


def test_a_key_that_stays_missing_is_named_and_the_file_is_not_read_for_it(
    path: Path, file: KeyRingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault(file)
    monkeypatch.setattr(KeyRing, "load", lambda _path: pytest.fail("it has not changed"))
    for _ in range(3):
        with pytest.raises(KeyMissing, match="'new'"):
            vault.open(sealed_by(BOTH), BINDING)


@pytest.mark.parametrize("content", [b"", b"{}", BOTH.dump()[:-40]])
def test_a_broken_file_costs_one_error_and_the_ring_of_before_stays(
    path: Path, clock: Clock, file: KeyRingFile, content: bytes
) -> None:
    vault = Vault(file)
    put(path, content)
    with capture_logs() as logs:
        for _ in range(3):
            clock.now += 2 * RING_CHECK_S
            assert vault.open(sealed_by(OLD), BINDING) == Secret("geheim")
    assert [(line["event"], line["log_level"]) for line in logs] == [("key_ring_not_read", "error")]
    put(path, BOTH.dump())
    clock.now += 2 * RING_CHECK_S
    assert vault.seal(Secret("x"), BINDING).key_id == "new"


def test_a_file_that_is_away_for_a_while_is_taken_up_again(
    path: Path, clock: Clock, file: KeyRingFile
) -> None:
    path.unlink()
    with capture_logs() as logs:
        for _ in range(3):
            clock.now += 2 * RING_CHECK_S
            assert file.current().active == "old"
    assert len(logs) == 1
    put(path, BOTH.dump())
    clock.now += 2 * RING_CHECK_S
    assert file.current().active == "new"


def test_a_change_that_keeps_size_and_times_of_modification_is_seen(
    path: Path, clock: Clock, file: KeyRingFile
) -> None:
    before = path.stat()
    put(path, KeyRing.generate("neu").dump())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    clock.now += 2 * RING_CHECK_S
    assert file.current().active == "neu"


def test_a_first_file_that_cannot_be_used_is_refused(path: Path) -> None:
    path.write_bytes(b"{}")
    with pytest.raises(KeyRingInvalid, match="must be an object"):
        Vault.from_file(path)


def test_rings_made_from_rings() -> None:
    assert BOTH.ids == ("new", "old")
    assert OLD.with_key("new", active=False).active == "old"
    assert BOTH.activating("old").active == "old"
    assert Vault(BOTH.without_key("old")).open(sealed_by(BOTH), BINDING) == Secret("geheim")
    with pytest.raises(KeyRingInvalid, match="has a key 'old' already"):
        OLD.with_key("old", active=True)
    with pytest.raises(KeyRingInvalid, match="'new' is not among"):
        BOTH.without_key("new")
    with pytest.raises(KeyMissing, match="'other'"):
        BOTH.without_key("other")
    with pytest.raises(KeyRingInvalid, match="'other' is not among"):
        BOTH.activating("other")

import stat
from pathlib import Path

import msgspec
import pytest

from swarm_stack.offline_copy import CopyUnreadable, read_copy, write_copy

PASSPHRASE = "correct horse battery"
VALUES = {"key_ring": b'{"active": "a"}\n', "bytes": bytes(range(256))}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.enc"
    write_copy(path, VALUES, PASSPHRASE)
    return path


def test_what_was_written_is_read(copy: Path) -> None:
    assert read_copy(copy, PASSPHRASE) == VALUES


def test_only_its_owner_reads_it_and_it_shows_nothing(copy: Path) -> None:
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    text = copy.read_text()
    assert "key_ring" not in text
    assert "active" not in text


def test_another_passphrase_opens_nothing(copy: Path) -> None:
    with pytest.raises(CopyUnreadable, match="another passphrase"):
        read_copy(copy, PASSPHRASE + ".")


@pytest.mark.parametrize("field", ["salt", "nonce", "sealed"])
def test_a_damaged_copy_is_found_out(copy: Path, field: str) -> None:
    sealed = msgspec.json.decode(copy.read_bytes())
    changed = sealed[field].replace(sealed[field][2], "A" if sealed[field][2] != "A" else "B", 1)
    copy.write_bytes(msgspec.json.encode({**sealed, field: changed}))
    with pytest.raises(CopyUnreadable):
        read_copy(copy, PASSPHRASE)


@pytest.mark.parametrize("change", [{"n": 2**40}, {"r": 10**6}, {"format": "another"}])
def test_a_copy_cannot_ask_for_other_work(copy: Path, change: dict[str, object]) -> None:
    sealed = msgspec.json.decode(copy.read_bytes())
    copy.write_bytes(msgspec.json.encode({**sealed, **change}))
    with pytest.raises(CopyUnreadable, match="another version"):
        read_copy(copy, PASSPHRASE)


def test_something_else_is_said_to_be_something_else(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a copy")
    with pytest.raises(CopyUnreadable, match="no offline copy"):
        read_copy(path, PASSPHRASE)


def test_no_copy_is_written_over_another(copy: Path) -> None:
    with pytest.raises(FileExistsError):
        write_copy(copy, VALUES, PASSPHRASE)


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="12 characters"):
        write_copy(tmp_path / "x.enc", VALUES, "short")
    assert not (tmp_path / "x.enc").exists()

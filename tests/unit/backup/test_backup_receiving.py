"""The receiver begins anew where it cannot go on, and only there."""

from pathlib import Path

import pytest

from backup.barman import STREAMING, WALS
from backup.receiving import Receiving
from backup.server import ServerState

TL1_A, TL1_B = "00000001000000000000000A", "00000001000000000000000B"
TL2_9, TL2_A = "000000020000000000000009", "00000002000000000000000A"


class Barman:
    def __init__(self) -> None:
        self.archived = 0

    def archive(self) -> None:
        self.archived += 1


class Server:
    """Gives a new slot that keeps the log from some segment on."""

    def __init__(self, kept_from: str) -> None:
        self.kept_from = kept_from
        self.slots = 0

    def keep_from_here(self) -> None:
        self.slots += 1

    def state(self) -> ServerState:
        return state(self.kept_from)


def state(
    kept_from: str | None, *, receiving: bool = False, slot: str | None = "reserved"
) -> ServerState:
    timeline = 1 if kept_from is None else int(kept_from[:8], 16)
    return ServerState(timeline, receiving, slot, kept_from)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / STREAMING).mkdir(parents=True)
    return tmp_path


def files(directory: Path, *names: str) -> None:
    for name in names:
        (directory / STREAMING / name).write_text(name)


def found(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (directory / STREAMING).iterdir()}


def mended(directory: Path, seen: ServerState, then: str = TL2_A) -> tuple[bool, Barman, Server]:
    barman, server = Barman(), Server(then)
    return Receiving(barman, server, directory).mend(seen), barman, server  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ((f"{TL1_A}.partial",), state(TL1_A)),
        ((f"{TL1_A}.partial",), state(TL1_A, receiving=True)),
        ((f"{TL1_A}.partial",), state(TL2_9, receiving=True)),
        ((f"{TL1_B}.partial", TL1_A), state(TL1_A)),
        # The next one has been begun on the server, and nothing of it has come.
        ((TL1_A,), state(TL1_B)),
        ((), state(TL2_9)),
        ((), state(None, slot=None)),
    ],
)
def test_what_goes_on_is_left_alone(
    directory: Path, names: tuple[str, ...], seen: ServerState
) -> None:
    files(directory, *names)
    before = found(directory)
    gap, barman, server = mended(directory, seen)
    assert (gap, barman.archived, server.slots) == (False, 0, 0)
    assert found(directory) == before


@pytest.mark.parametrize("ahead", [f"{TL1_A}.partial", f"{TL1_B}.partial"])
def test_after_a_restore_it_begins_on_the_new_timeline(directory: Path, ahead: str) -> None:
    files(directory, ahead, "00000001.history")
    gap, barman, server = mended(directory, state(TL2_9))
    assert (gap, barman.archived, server.slots) == (True, 1, 0)
    assert found(directory) == {f"{TL2_9}.partial": "", "00000001.history": "00000001.history"}
    # What was received of the other is kept where a restore finds it.
    assert (directory / WALS / "0000000100000000" / ahead).read_text() == ahead


def test_back_on_the_old_timeline_it_begins_there(directory: Path) -> None:
    files(directory, f"{TL2_A}.partial")
    gap, _, _ = mended(directory, state(TL1_A))
    assert gap
    assert set(found(directory)) == {f"{TL1_A}.partial"}
    assert (directory / WALS / "0000000200000000" / f"{TL2_A}.partial").exists()


@pytest.mark.parametrize("slot", [None, "lost"])
def test_without_its_slot_it_begins_where_the_log_is_kept_from_now_on(
    directory: Path, slot: str | None
) -> None:
    files(directory, f"{TL1_A}.partial")
    later = "000000010000000100000003"
    gap, barman, server = mended(directory, state(None, slot=slot), later)
    assert (gap, barman.archived, server.slots) == (True, 1, 1)
    assert set(found(directory)) == {f"{later}.partial"}


def test_a_gap_on_the_same_timeline_is_one(directory: Path) -> None:
    files(directory, f"{TL1_A}.partial")
    gap, _, server = mended(directory, state("00000001000000000000000C"))
    assert (gap, server.slots) == (True, 0)


def test_segments_are_counted_over_the_boundary_of_a_log(directory: Path) -> None:
    files(directory, "0000000100000000000000FF")
    assert not mended(directory, state("000000010000000100000000"))[0]
    assert mended(directory, state("000000010000000100000001"))[0]

"""Parts of the supervisor by themselves."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import rpyc.core.brine
from hypothesis import given
from hypothesis import strategies as st

from terminal.supervisor import probe
from terminal.supervisor.board import Said, read_board
from terminal.supervisor.clients import Clients
from terminal.supervisor.download import DownloadFailed, download, main
from terminal.supervisor.journal import Journal
from terminal.supervisor.layout import windows
from terminal.supervisor.logs import BoundedLog

HEAD = "  sl  local_address rem_address   st tx_queue\n"


class Collected:
    """A log that keeps its lines in a list."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def append(self, message: str, level: str = "INFO") -> None:
        self.lines.append((level, message))


# -- the probe ------------------------------------------------------------------------------------


def test_the_question_is_rpycs_own_ping() -> None:
    # (a request, its number, (the handler of pings, a tuple of one value))
    assert rpyc.core.brine.load(probe._ASK) == (1, 1, (1, (2, ((1, b"?"),))))
    answer = rpyc.core.brine.dump((2, 1, (1, b"?")))
    assert answer.startswith(probe._ANSWER)
    assert not rpyc.core.brine.dump((3, 1, ("an exception",))).startswith(probe._ANSWER)


# -- who is connected -----------------------------------------------------------------------------


def row(number: int, local: str, remote: str, state: str) -> str:
    return f"   {number}: {local} {remote} {state} 00000000:00000000\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    net = tmp_path / "net"
    net.mkdir()
    (net / "tcp").write_text(
        HEAD
        + row(0, "00000000:1F41", "00000000:0000", "0A")  # listens
        + row(1, "0504A8C0:1F41", "0604A8C0:C001", "01")
        + row(2, "0504A8C0:1F41", "0704A8C0:C002", "08")  # its client has gone
        + row(3, "0504A8C0:1F41", "0804A8C0:C003", "06")
        + row(4, "0604A8C0:C001", "0504A8C0:1F41", "01")  # the other end
        + row(5, "0504A8C0:1F42", "0604A8C0:C004", "01")
    )
    other = "0000000000000000FFFF00000504A8C0"
    (net / "tcp6").write_text(HEAD + row(0, f"{other}:1F41", f"{other}:C005", "01"))
    return tmp_path


def test_connections_are_counted_by_port_and_state(proc: Path) -> None:
    clients = Clients(proc)
    assert (clients.count(8001), clients.count(8002), clients.count(8003)) == (2, 1, 0)


def test_a_machine_without_ipv6_is_fine(proc: Path) -> None:
    (proc / "net" / "tcp6").unlink()
    assert Clients(proc).count(8001) == 1


def test_the_supervisors_own_connections_are_not_counted(proc: Path) -> None:
    clients = Clients(proc)
    with clients.uncounted() as mine:
        table = proc / "net" / "tcp"
        port = f"{mine.getsockname()[1]:04X}"
        table.write_text(table.read_text() + row(6, "0100007F:1F41", f"0100007F:{port}", "01"))
        assert clients.count(8001) == 2
    assert clients.count(8001) == 3


# -- logs -----------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=300), max_size=60), st.integers(200, 3000))
def test_a_log_keeps_the_newest_lines_in_order_within_its_bounds(
    messages: list[str], file_bytes: int
) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        log = BoundedLog(path, file_bytes)
        for message in messages:
            log.append(message)
        kept = [line["message"] for line in log.last(1000)]
        assert kept == messages[len(messages) - len(kept) :]
        assert kept or not messages
        # A single line may be longer than a file.
        longest = max((len(json.dumps(message)) for message in messages), default=0) + 100
        for file in Path(directory).iterdir():
            assert file.stat().st_size <= max(file_bytes, longest)
        assert log.last(1) == log.last(1000)[-1:]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log")
    log.append("whole")
    with (tmp_path / "log").open("a") as file:
        file.write('{"timestamp": "2026')
    assert [line["message"] for line in log.last(10)] == ["whole"]


def test_a_log_that_cannot_be_written_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = BoundedLog(tmp_path / "log")
    (tmp_path / "log").mkdir()
    for _ in range(3):
        log.append("lost")
    (event,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert event["event"] == "log_lost"
    (tmp_path / "log").rmdir()
    log.append("kept")
    assert [line["message"] for line in log.last(10)] == ["kept"]


# -- the journal ----------------------------------------------------------------------------------


@given(st.lists(st.text("abcdé漢𝄞਀\t ", max_size=40), max_size=20), st.lists(st.integers(1, 60)))
def test_a_journal_is_copied_whole_however_it_is_written(
    texts: list[str], pieces: list[int]
) -> None:
    with TemporaryDirectory() as directory:
        collected = Collected()
        journal = Journal(Path(directory), collected)  # type: ignore[arg-type]
        written = ("\ufeff" + "".join(f"{text}\r\n" for text in texts)).encode("utf-16-le")
        path = Path(directory) / "20260101.log"
        for size in [*pieces, len(written)]:
            with path.open("ab") as file:
                file.write(written[:size])
            written = written[size:]
            journal.follow()
        journal.follow()
        expected = []
        for text in texts:
            columns = text.split("\t", 4)
            whole = len(columns) == 5
            expected.append(f"{columns[3]}: {columns[4]}" if whole else text)
        assert [text for _, text in collected.lines] == [text for text in expected if text.strip()]


def test_a_new_day_is_followed_and_old_days_go(tmp_path: Path) -> None:
    collected = Collected()
    journal = Journal(tmp_path, collected)  # type: ignore[arg-type]
    journal.follow()
    for day in range(10, 20):
        (tmp_path / f"202601{day}.log").write_bytes(f"day {day}\n".encode("utf-16-le"))
        journal.follow()
    with (tmp_path / "20260119.log").open("ab") as file:
        file.write("more\n".encode("utf-16-le"))
    journal.follow()
    assert [text for _, text in collected.lines] == [
        *(f"day {day}" for day in range(10, 20)),
        "more",
    ]
    assert min(path.name for path in tmp_path.iterdir()) == "20260113.log"
    again = Journal(tmp_path, collected)  # type: ignore[arg-type]
    again.skip()
    again.follow()
    assert collected.lines[-1][1] == "more"


# -- the board ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"login_until_ms": 5, "logged_in": 7, "version": "5.0.1"}', Said(5, 7, "5.0.1")),
        ('{"login_until_ms": 5, "logged_in": 7, "version": null}', Said(5, 7, None)),
        ('{"login_until_ms": "x", "logged_in": 7, "version": null}', Said()),
        ('{"login_until_ms": 5}', Said()),
        ("[]", Said()),
        ("", Said()),
    ],
)
def test_a_board_says_something_or_nothing(tmp_path: Path, text: str, said: Said) -> None:
    (tmp_path / "board").write_text(text)
    assert read_board(tmp_path / "board") == said
    assert read_board(tmp_path / "none") == Said()


# -- downloads ------------------------------------------------------------------------------------


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"short" if self.path == "/short" else b"x" * 100)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_comes_whole_or_not_at_all(url: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    right = hashlib.sha256(b"x" * 100).hexdigest()
    with pytest.raises(DownloadFailed, match=r"5 of 100 bytes|IncompleteRead"):
        download(f"{url}/short", path, None)
    with pytest.raises(DownloadFailed, match="is another file: SHA-256 " + right):
        download(f"{url}/whole", path, "0" * 64)
    with pytest.raises(DownloadFailed, match="refused"):
        download("http://127.0.0.1:9/file", path, None)
    with pytest.raises(DownloadFailed, match="unknown url type"):
        download("no-url", path, None)
    assert not path.exists()
    download(f"{url}/whole", path, right.upper())
    assert path.read_bytes() == b"x" * 100
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_build_that_lacks_a_file_is_told_how_to_go_on(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"{url}/whole", str(tmp_path / "file"), "0" * 64) == 1
    said = capsys.readouterr().err
    assert "give another URL or hash as a build argument" in said
    assert len(said.splitlines()) == 1


def test_paths_are_shown_to_wine_on_drive_z() -> None:
    assert windows(Path("/run/mt5/1/board.json")) == "Z:\\run\\mt5\\1\\board.json"

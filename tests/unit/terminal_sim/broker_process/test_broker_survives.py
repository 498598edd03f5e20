"""A broker's process: what it has acknowledged is there after it was killed."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from terminal_sim.broker.messages import Answer, History, Login, Trade, Traded, Welcome
from terminal_sim.broker.process import BrokerSettings, run
from terminal_sim.broker.values import TradeRequest
from terminal_sim.market.clocks import SystemClock
from terminal_sim.process.wire import Listening, LogLine, decode
from terminal_sim.scenario.model import Account, Robot, Scenario, Server
from terminal_sim.scenario.moments import Moment

PATIENCE_S = 60.0
BUY = TradeRequest(action=1, symbol="EURUSD", volume=0.1, type=0)
answers = msgspec.msgpack.Decoder(Answer).decode
# It has traded for an hour and trades on, several times a second.
ROBOT = Robot("GBPUSD", 0.01, Moment(SystemClock().now_ms() - 3_600_000), 0.5, 0.2)
ACCOUNT = Account(1, "secret", "S", balance=1e5, robot=ROBOT)
SCENARIO = Scenario((Server("S"),), (ACCOUNT,), seed=5)


class Run:
    """A broker in a process of its own."""

    def __init__(self, process: SpawnProcess, pipe: Any) -> None:
        self.process = process
        self.pipe = pipe
        self.lines: list[str] = []

    def port(self) -> int:
        while self.pipe.poll(PATIENCE_S):
            message = decode(self.pipe.recv_bytes())
            if isinstance(message, Listening):
                return message.port
            assert isinstance(message, LogLine)
            self.lines.append(message.message)
        raise AssertionError(self.lines)

    def rest(self) -> list[str]:
        try:
            while self.pipe.poll(PATIENCE_S):
                message = decode(self.pipe.recv_bytes())
                if isinstance(message, LogLine):
                    self.lines.append(message.message)
        except EOFError:
            return self.lines
        raise AssertionError(self.lines)


@contextmanager
def broker(data_dir: Path | None, scenario: Scenario = SCENARIO) -> Iterator[Run]:
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    settings = BrokerSettings("S", "127.0.0.1", 0, scenario, data_dir)
    process = context.Process(target=run, args=(settings, writer))
    process.start()
    writer.close()
    try:
        yield Run(process, reader)
    finally:
        process.kill()
        process.join()
        reader.close()


class Terminal:
    """A blocking client."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.file = self.socket.makefile("rb")
        self.welcome = self.ask(Login(1, 1, "secret", "here"), Welcome)

    def ask(self, message: Any, kind: Any) -> Any:
        body = msgspec.msgpack.encode(message)
        self.socket.sendall(len(body).to_bytes(4, "big") + body)
        while True:
            length = int.from_bytes(self.file.read(4), "big")
            answer = answers(self.file.read(length))
            if isinstance(answer, kind):
                return answer

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    tickets: list[int] = []
    deals: list[Any] = []
    for _ in range(3):
        with broker(tmp_path) as it:
            terminal = Terminal(it.port())
            assert [p.ticket for p in terminal.welcome.account.positions if p.magic == 0] == tickets
            rows = terminal.ask(History(2, "deals"), object)
            assert list(rows.rows[: len(deals)]) == deals
            numbers = [row.ticket for row in rows.rows]
            assert len(set(numbers)) == len(numbers)
            # No cycle of the robot was missed while the broker was away, none was dealt twice.
            opened = [row.position_id for row in rows.rows if row.magic == 1 and row.entry == 0]
            assert opened == list(range(opened[0], opened[0] + 8 * len(opened), 8))
            for number in range(3):
                result = terminal.ask(Trade(number, BUY), Traded).result
                assert result.retcode == 10009
                tickets.append(result.order)
            deals = list(terminal.ask(History(9, "deals"), object).rows)
            it.process.kill()
            terminal.close()


def test_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    with broker(tmp_path) as it:
        terminal = Terminal(it.port())
        it.process.terminate()
        it.process.join(PATIENCE_S)
        assert it.process.exitcode == 0
        assert "the broker of S has stopped" in it.rest()
        terminal.close()
    # The log of SQLite was folded in: the journal was closed, not left.
    assert [path.name for path in tmp_path.iterdir()] == ["S.journal"]


def test_without_a_directory_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with broker(None) as it:
        terminal = Terminal(it.port())
        assert terminal.ask(Trade(1, BUY), Traded).result.retcode == 10009
        terminal.close()
    assert list(tmp_path.iterdir()) == []


def test_another_scenarios_journal_stops_it_with_a_line(tmp_path: Path) -> None:
    with broker(tmp_path) as it:
        it.port()
    other = Scenario(SCENARIO.servers, SCENARIO.accounts, seed=6)
    with broker(tmp_path, other) as it:
        it.process.join(PATIENCE_S)
        assert it.process.exitcode == 1
        (line,) = it.rest()
        assert line == f"{tmp_path}/S.journal: was begun with seed 5, the scenario has 6"

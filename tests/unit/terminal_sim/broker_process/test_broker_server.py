"""A broker over TCP: what its peers are told, in which order, and who is turned away."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any, NoReturn, TypeVar

import msgspec
import pytest

from terminal_sim.broker import connection as wire
from terminal_sim.broker.house import House, Told
from terminal_sim.broker.journal import JournalError
from terminal_sim.broker.messages import (
    Act,
    Answer,
    Beat,
    Changed,
    Checked,
    Deals,
    Done,
    History,
    Inject,
    Login,
    Look,
    Mend,
    Orders,
    Seen,
    Shifted,
    Spent,
    Trade,
    Traded,
    Welcome,
)
from terminal_sim.broker.server import Server
from terminal_sim.broker.values import Change, TradeRequest
from terminal_sim.faults.kinds import AnswerLost, ClockShift, LoginRejected
from terminal_sim.market.clocks import Clock, SystemClock
from terminal_sim.scenario.model import Account, Robot, Scenario
from terminal_sim.scenario.model import Server as ServerModel
from terminal_sim.scenario.moments import DAY_MS, Moment
from terminal_sim.testing import ManualClock

BUY = TradeRequest(action=1, symbol="EURUSD", volume=0.1, type=0)
PATIENCE_S = 20.0
A = TypeVar("A")
decode = msgspec.msgpack.Decoder(Answer).decode


class Peer:
    """A client that keeps everything it has read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, message: Any) -> None:
        body = msgspec.msgpack.encode(message)
        self.writer.write(len(body).to_bytes(4, "big") + body)

    async def read(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            length = int.from_bytes(await self.reader.readexactly(4), "big")
            return decode(await self.reader.readexactly(length))

    async def next(self, *kinds: type[A]) -> A:
        while not isinstance(message := await self.read(), kinds):
            pass
        return message

    async def ask(self, message: Any) -> Any:
        """The next message that is an answer or a change."""
        self.send(message)
        while isinstance(answer := await self.read(), Beat):
            pass
        return answer

    async def gone(self) -> bool:
        with suppress(OSError):
            async with asyncio.timeout(PATIENCE_S):
                while await self.reader.read(65536):
                    pass
        return True


class Broker:
    """A server on a free port, over a house with two accounts."""

    def __init__(self, port: int, house: House, task: asyncio.Task[NoReturn]) -> None:
        self.port = port
        self.task = task
        self.house = house
        self.peers: list[Peer] = []

    async def peer(self, login: int | None = None, password: str = "secret") -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        self.peers.append(peer)
        if login is not None:
            assert isinstance(await peer.ask(Login(1, login, password, "here")), Welcome)
        return peer


@asynccontextmanager
async def broker(
    key: str | None = None, clock: Clock | None = None, **fields: Any
) -> AsyncIterator[Broker]:
    accounts = tuple(
        Account(n, "secret", "S", investor_password="look", balance=1e5, **fields) for n in (1, 2)
    )
    clock = clock or SystemClock()
    house = House(Scenario((ServerModel("S"),), accounts, seed=5), "S", clock)
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(Server(house, clock, key).run("127.0.0.1", 0, listening))
    running = Broker(await listening, house, task)
    try:
        yield running
    finally:
        for peer in running.peers:
            peer.writer.close()
        await asyncio.gather(
            *(p.writer.wait_closed() for p in running.peers), return_exceptions=True
        )
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_order_moves_every_terminal_of_the_account_before_it_is_answered() -> None:
    async with broker() as it:
        one, two, other = await it.peer(1), await it.peer(1), await it.peer(2)
        changed = await one.ask(Trade(5, BUY))
        assert isinstance(changed, Changed)
        assert changed.version == 1
        traded = await one.next(Traded)
        assert (traded.id, traded.result.retcode) == (5, 10009)
        assert await two.next(Changed) == changed
        assert isinstance(await other.ask(History(6, "deals")), Deals)
        third = await it.peer()
        welcome = await third.ask(Login(1, 1, "secret", "late"))
        assert [p.ticket for p in welcome.account.positions] == [traded.result.order]
        assert welcome.account.version == changed.version


async def test_what_happens_by_itself_is_told() -> None:
    soon = Moment(SystemClock().now_ms() + 300)
    async with broker(robot=Robot("EURUSD", 0.1, soon, 1.0, 0.3)) as it:
        one = await it.peer(1)
        opened, closed = await one.next(Changed), await one.next(Changed)
        assert [p.ticket for p in opened.change.positions] == list(closed.change.gone)
        assert closed.version == opened.version + 1
        assert isinstance(await one.next(Beat), Beat)


@pytest.mark.parametrize("asks", [False, True])
async def test_missed_days_hold_nothing_up_and_nobody_acts_in_them(
    monkeypatch: pytest.MonkeyPatch,
    asks: bool,
) -> None:
    clock = ManualClock(1_795_005_296_789)
    robot = Robot("EURUSD", 0.1, Moment(clock.at_ms + 1), 600.0, 300.0)
    async with broker(clock=clock, robot=robot) as it:
        one, lived, seen = await it.peer(1), [0], {0}
        piece = it.house.piece

        def counted(now_ms: int) -> bool:
            more = piece(now_ms)
            lived[0] += more
            return more

        async def watch() -> None:
            while True:
                seen.add(lived[0])
                await asyncio.sleep(0)

        monkeypatch.setattr(it.house, "piece", counted)
        watching = asyncio.create_task(watch())
        clock.at_ms += 2 * DAY_MS
        if asks:
            one.send(Trade(5, BUY))
        told: list[Changed] = []
        while not told or told[-1].change.deals[0].time_ms < clock.at_ms - 300_000:
            told.append(await one.next(Changed))
        watching.cancel()
        assert lived == [48]
        assert max(later - sooner for sooner, later in pairwise(sorted(seen))) <= 2
        if asks:
            while not isinstance(answer := await one.read(), Traded):
                told += [answer] if isinstance(answer, Changed) else []
            assert answer.result.retcode == 10009
            assert told[-1].change.deals[0].time_ms == clock.at_ms
        assert [each.version for each in told] == list(range(1, len(told) + 1))


async def test_what_a_check_let_happen_is_told_before_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock(1_795_005_296_789)
    robot = Robot("EURUSD", 0.1, Moment(clock.at_ms + 60_000), 600.0, 300.0)
    async with broker(clock=clock, robot=robot) as it:
        one = await it.peer(1)
        it.house.piece(clock.at_ms)
        check = it.house.check

        def late(*args: Any, **kwargs: Any) -> Any:
            clock.at_ms += 120_000
            return check(*args, **kwargs)

        # Time passes within the request.
        monkeypatch.setattr(it.house, "check", late)
        assert isinstance(await one.ask(Trade(5, BUY, check=True)), Changed)
        assert isinstance(await one.ask(History(6, "deals")), Checked)


async def test_a_journal_found_damaged_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_args: Any, **_filters: Any) -> NoReturn:
        raise JournalError("S.journal: is damaged: by hand")

    async with broker() as it:
        one = await it.peer(1)
        monkeypatch.setattr(it.house, "history", damaged)
        one.send(History(1, "deals"))
        with pytest.raises(JournalError, match="by hand"):
            await asyncio.wait_for(it.task, PATIENCE_S)


async def test_nobody_gets_anywhere_without_a_login_or_the_key() -> None:
    async with broker(key="key") as it:
        peer = await it.peer()
        for request in (Trade(1, BUY), History(1, "deals")):
            assert (await peer.ask(request)).reason == "unauthorized"
        for key in (None, "", "wrong", "ключ"):
            for keyed in (
                Act(1, 1, BUY, key=key),
                Look(1, 1, key=key),
                Inject(1, 1, LoginRejected(), key=key),
                Mend(1, key=key),
            ):
                assert (await peer.ask(keyed)).reason == "forbidden"
        assert (await peer.ask(Login(1, 1, "wrong", "here"))).reason == "unauthorized"
        assert isinstance(await peer.ask(Login(2, 1, "secret", "here")), Welcome)
        assert (await peer.ask(Login(3, 2, "secret", "here"))).reason == "invalid"


async def test_an_investor_may_look_but_not_trade() -> None:
    async with broker() as it:
        peer = await it.peer(1, "look")
        assert (await peer.ask(Trade(1, BUY))).result.retcode == 10017
        assert isinstance(await peer.ask(Trade(2, BUY, check=True)), Checked)


async def test_a_supervisor_acts_as_a_person_elsewhere() -> None:
    async with broker(key="key") as it:
        terminal, supervisor = await it.peer(1), await it.peer()
        traded = await supervisor.ask(Act(1, 1, BUY, reason=1, key="key"))
        assert traded.result.retcode == 10009
        assert (await terminal.next(Changed)).change.deals[0].reason == 1
        paid = await supervisor.ask(Act(2, 1, deposit=50.0, key="key"))
        assert paid.result.retcode == 10009
        assert (await terminal.next(Changed)).change.deals[0].profit == 50.0
        seen = await supervisor.ask(Look(3, 1, key="key"))
        assert isinstance(seen, Seen)
        assert seen.account.balance == 100_050.0
        assert (await supervisor.ask(Look(4, 9, key="key"))).reason == "unknown"
        assert (await supervisor.ask(Act(5, 9, BUY, key="key"))).reason == "unknown"
        orders = await terminal.ask(History(6, "orders", order=traded.result.order))
        assert isinstance(orders, Orders)
        assert len(orders.rows) == 1


async def test_faults_are_injected_told_of_and_mended() -> None:
    async with broker() as it:
        terminal, supervisor = await it.peer(1), await it.peer()
        assert isinstance(await supervisor.ask(Inject(1, 77, AnswerLost(answer="none"))), Done)
        terminal.send(Trade(1, BUY))
        assert isinstance(await terminal.next(Changed, Traded), Changed)
        assert (await supervisor.next(Spent)).fault_id == 77
        # The next answer is that to the next request: there was none before it.
        assert isinstance(await terminal.ask(History(2, "deals")), Deals)
        assert isinstance(await supervisor.ask(Mend(2)), Done)
        terminal.send(Trade(3, BUY))
        assert (await terminal.next(Traded)).id == 3


async def test_a_shift_of_the_clock_is_told() -> None:
    async with broker() as it:
        terminal, supervisor = await it.peer(1), await it.peer()
        assert isinstance(await supervisor.ask(Inject(1, 7, ClockShift(seconds=0.2))), Done)
        assert [by for _, by in (await terminal.next(Shifted)).shifts] == [3_600_000]
        assert [by for _, by in (await terminal.next(Shifted)).shifts] == [3_600_000, -3_600_000]


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00\x00\x03\x81\xa1x",
        len(b"\x91" * 200_000).to_bytes(4, "big") + b"\x91" * 200_000,
        b"\x00\x00\x00\x00",
    ],
)
async def test_what_is_no_message_closes_only_its_connection(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with broker() as it:
        good, bad = await it.peer(1), await it.peer()
        bad.writer.write(sent)
        assert await bad.gone()
        assert "connection closed" in caplog.text
        assert isinstance(await good.ask(History(1, "deals")), Deals)


async def test_a_password_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "terminal_sim")
    async with broker() as it:
        await it.peer(1)
        peer = await it.peer()
        await peer.ask(Login(1, 1, "s3cret-wrong", "there\nroot logged in"))
        body = msgspec.msgpack.encode({"type": "Login", "id": 1, "password": "s3cret-wrong"})
        peer.writer.write(len(body).to_bytes(4, "big") + body)
        assert await peer.gone()
    assert "logged in to 1" in caplog.text
    assert "refused" in caplog.text
    assert "secret" not in caplog.text
    assert "s3cret" not in caplog.text
    assert "\nroot" not in caplog.text


async def test_who_does_not_read_is_given_up_and_delays_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wire, "_BACKLOG", 10_000)
    async with broker() as it:
        sleeper = socket.socket()
        sleeper.settimeout(PATIENCE_S)
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sleeper.connect(("127.0.0.1", it.port))
        body = msgspec.msgpack.encode(Login(1, 1, "secret", "sleeper"))
        sleeper.sendall(len(body).to_bytes(4, "big") + body)
        awake = await it.peer(1)
        traded = await it.peer(1)
        traded.send(Trade(1, BUY))
        change = (await awake.next(Changed)).change
        large = Change(deals=change.deals * 1000)
        for version in range(1000):
            it.house._told.append(Told(1, large, version))
            assert (await awake.next(Changed)).version == version
            if "given up" in caplog.text:
                break
        assert "sleeper" in caplog.text
        assert "given up" in caplog.text
        assert isinstance(await awake.ask(History(1, "orders", order=1)), Orders)
        with suppress(ConnectionResetError):
            while await asyncio.to_thread(sleeper.recv, 1 << 20):
                pass
        sleeper.close()

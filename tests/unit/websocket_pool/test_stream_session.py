import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from tests.hand_socket import HandSocket, served, until
from tests.session_fakes import RULES, HandLine, ticket

from mt5kit.domain.instants import now_ms
from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.close_codes import CloseCode
from websocket_pool.mailbox import BACKLOG_BYTES, CONTROL_MESSAGES
from websocket_pool.messages import Message, Place, encode
from websocket_pool.session import BAD_MESSAGES, Session
from websocket_pool.stall import Stall
from websocket_pool.wire import Flow

AT_ONCE, BY_ASGI = True, False


@pytest.mark.parametrize("wired", [AT_ONCE, BY_ASGI])
async def test_a_reader_is_told_everything_in_order(wired: bool) -> None:
    async with served(HandSocket(wired=wired)) as one:
        for _ in range(50):
            one.line.advance()
            await asyncio.sleep(0)
        await until(lambda: len(one.socket.taken) == 52)
        expected = [("connected", 0), ("snapshot", 0)]
        assert one.socket.told == expected + [("account_update", seq) for seq in range(1, 51)]
        one.session.end(CloseCode.ENDED, "over")
        assert await one.ended() == CloseCode.ENDED
        assert one.socket.closed == (CloseCode.ENDED, "over")


async def test_a_message_is_handed_over_where_it_is_delivered() -> None:
    async with served(HandSocket(wired=AT_ONCE)) as one:
        tasks = asyncio.all_tasks()
        one.line.advance()
        assert one.socket.told[-1] == ("account_update", 1)
        assert asyncio.all_tasks() == tasks


async def test_what_comes_behind_a_backlog_waits_for_it() -> None:
    async with served(HandSocket(wired=AT_ONCE)) as one:
        one.socket.reads.clear()
        one.line.advance()
        # The writer has not had its turn yet; whoever wrote at once would be ahead of it.
        one.socket.reads.set()
        one.line.advance()
        await until(lambda: len(one.socket.taken) == 4)
        assert [seq for _, seq in one.socket.told] == [0, 0, 1, 2]


@pytest.mark.parametrize("wired", [AT_ONCE, BY_ASGI])
async def test_who_reads_again_gets_one_snapshot_of_now(wired: bool) -> None:
    async with served(HandSocket(wired=wired)) as one:
        await until(lambda: len(one.socket.taken) == 2)
        one.socket.reads.clear()
        for _ in range(40):
            one.line.advance(20_000)
            await asyncio.sleep(0)
        one.socket.reads.set()
        await until(lambda: one.socket.told[-1] == ("snapshot", 40))
        assert one.socket.taken[-1]["data"]["conflated"]
        one.line.advance()
        await until(lambda: one.socket.told[-1] == ("account_update", 41))
        snapshots = [kind for kind, _ in one.socket.told].count("snapshot")
        assert snapshots == 2


async def test_a_replay_larger_than_the_backlog_is_whole() -> None:
    line = HandLine()
    for _ in range(500):
        line.advance(2_000, seen_ms=now_ms())
    assert sum(message.size for message in line.told) > 3 * BACKLOG_BYTES
    socket = HandSocket(wired=AT_ONCE)
    socket.reads.clear()
    async with served(socket, line, since=(7, 0)) as one:
        line.advance(seen_ms=now_ms())
        socket.reads.set()
        await until(lambda: len(socket.taken) == 502)
        assert [seq for _, seq in socket.told] == [500, *range(1, 502)]
        assert socket.taken[0]["data"]["resumed"] is True
        assert one.delivered() == 1, "a replay is as old as its reader's absence"


async def test_silence_brings_a_heartbeat_and_the_newest_ticket() -> None:
    async with served(HandSocket(wired=AT_ONCE), heartbeat_s=0.01) as one:
        one.session._asides._ticket.value = "r-2"
        await until(lambda: len(one.socket.taken) >= 4)
        assert one.socket.told[2:4] == [("heartbeat", 0), ("heartbeat", 0)]
        assert one.socket.taken[2]["data"]["resume_ticket"] == "r-2"


async def test_a_delivery_is_no_silence() -> None:
    async with served(HandSocket(wired=AT_ONCE)) as one:
        one.session._sent_s -= 2 * RULES.heartbeat_s
        one.line.advance()
        one.session._look()
        assert one.socket.told[-1] == ("account_update", 1)
        one.session._sent_s -= 2 * RULES.heartbeat_s
        one.session._look()
        assert one.socket.told[-1] == ("heartbeat", 1)


async def test_a_ticket_is_brought_where_there_is_no_silence() -> None:
    async with served(HandSocket(wired=AT_ONCE), ticket_s=0.02) as one:
        async with asyncio.timeout(10):
            while ("heartbeat", one.line.place.seq) not in one.socket.told:
                one.line.advance()
                await asyncio.sleep(0.001)


async def test_a_heartbeat_is_never_ahead_of_its_reader() -> None:
    async with served(HandSocket(wired=AT_ONCE), ticket_s=0.01, heartbeat_s=0.01) as one:
        one.socket.reads.clear()
        for _ in range(5):
            one.line.advance()
        await until(lambda: one.session._ticket_s > one.session._sent_s + 0.03)
        one.socket.reads.set()
        await until(lambda: "heartbeat" in dict(one.socket.told[7:]))
        seqs = [seq for _, seq in one.socket.told]
        assert seqs == sorted(seqs)
        assert [seq for kind, seq in one.socket.told if kind == "account_update"] == [1, 2, 3, 4, 5]


async def test_who_is_behind_is_not_behind_heartbeats() -> None:
    async with served(HandSocket(wired=AT_ONCE), heartbeat_s=0.01, stall_s=1.2) as one:
        one.socket.reads.clear()
        one.line.advance()
        looks = one.socket.looks
        await until(lambda: one.socket.looks >= looks + 2)
        waiting = one.session._outbox._mailbox._queue
        assert [message.type for message in waiting] == ["account_update"]


@pytest.mark.parametrize("wired", [AT_ONCE, BY_ASGI])
async def test_who_takes_nothing_is_cut(wired: bool) -> None:
    async with served(HandSocket(wired=wired), stall_s=0.05) as one:
        one.socket.reads.clear()
        one.line.advance()
        assert await one.ended() == CloseCode.SLOW
        assert one.socket.aborted
        assert one.socket.closed is None


def test_a_stall_is_no_progress_while_something_waits() -> None:
    stall = Stall(30)
    looks = [
        (Flow(0, waiting=False), 0),
        (Flow(5, waiting=True), 20),
        (Flow(5, waiting=True), 49),
        (Flow(6, waiting=True), 51),
        (Flow(6, waiting=True), 80),
    ]
    assert not any(stall.noticed(flow, now) for flow, now in looks)
    assert stall.noticed(Flow(6, waiting=True), 81)
    assert not stall.noticed(Flow(6, waiting=False), 500)
    assert not stall.noticed(Flow(6, waiting=True), 600), "it begins when something waits"
    assert not stall.noticed(Flow(5, waiting=True), 629)
    assert stall.noticed(Flow(6, waiting=True), 630), "what shrinks and grows back is no progress"


async def test_a_polite_end_waits_for_no_reader_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("websocket_pool.session._CLOSE_PATIENCE_S", 0.05)
    async with served(HandSocket(wired=AT_ONCE)) as one:
        one.socket.reads.clear()
        one.session.end(CloseCode.RESTART, "this replica restarts")
        assert await one.ended() == CloseCode.RESTART
        assert one.socket.aborted


@pytest.mark.parametrize("wired", [AT_ONCE, BY_ASGI])
async def test_what_was_delivered_before_the_end_goes_first(wired: bool) -> None:
    async with served(HandSocket(wired=wired)) as one:
        await until(lambda: len(one.socket.taken) == 2)
        one.line.advance()
        one.session.end(CloseCode.RESTART, "this replica restarts")
        one.line.advance()
        assert await one.ended() == CloseCode.RESTART
        assert one.socket.told[2:] == [("account_update", 1)]
        assert one.socket.closed == (CloseCode.RESTART, "this replica restarts")


async def test_a_lifetime_is_the_doors_or_the_rules() -> None:
    async with served(HandSocket(wired=AT_ONCE), lifetime_s=0.01) as one:
        assert await one.ended() == CloseCode.UNAUTHENTICATED
    socket = HandSocket(wired=AT_ONCE)
    session = Session(
        socket, HandLine(), ticket(), replace(RULES, lifetime_s=0.01),
        StreamMetrics(CollectorRegistry()),
    )  # fmt: skip
    async with asyncio.timeout(10):
        assert await session.run(None) == CloseCode.UNAUTHENTICATED


async def test_the_code_of_a_client_that_leaves_is_its_own() -> None:
    async with served(HandSocket(wired=AT_ONCE)) as one:
        one.socket.said.put_nowait("bye")
        assert await one.ended() == 1001
        assert one.socket.closed is None
    async with served(HandSocket(wired=BY_ASGI)) as one:
        one.socket.gone = 1006
        one.line.advance()
        assert await one.ended() == 1006


async def test_five_messages_that_mean_nothing_are_the_last() -> None:
    async with served(HandSocket(wired=AT_ONCE)) as one:
        for _ in range(BAD_MESSAGES):
            one.socket.said.put_nowait("{}")
        assert await one.ended() == CloseCode.BAD_CLIENT
        assert [kind for kind, _ in one.socket.told].count("error") == BAD_MESSAGES


async def test_pings_and_refreshes_are_answered_and_long_messages_are_not() -> None:
    async with served(HandSocket(wired=AT_ONCE)) as one:
        one.socket.said.put_nowait('{"type":"ping"}')
        one.socket.said.put_nowait('{"type":"refresh"}')
        await until(lambda: len(one.socket.taken) == 4)
        assert one.socket.told[2:] == [("pong", 0), ("snapshot", 0)]
        one.socket.said.put_nowait(" " * 5000)
        assert await one.ended() == CloseCode.TOO_LARGE


async def test_a_flood_of_pings_without_reading_is_bounded_and_lets_others_in() -> None:
    async with served(HandSocket(wired=AT_ONCE)) as one:
        one.socket.reads.clear()
        for _ in range(10 * CONTROL_MESSAGES):
            one.socket.said.put_nowait('{"type":"ping"}')
        turns = 0
        while not one.socket.said.empty():
            await asyncio.sleep(0)
            turns += 1
        assert turns > CONTROL_MESSAGES
        one.socket.reads.set()
        one.line.advance()
        await until(lambda: one.socket.told[-1] == ("account_update", 1))
        assert [kind for kind, _ in one.socket.told].count("pong") == CONTROL_MESSAGES


async def test_a_status_of_the_connection_is_delivered_as_any_other() -> None:
    async with served(HandSocket(wired=AT_ONCE)) as one:
        data = {"state": "degraded", "reason": "Redis is away"}
        one.line.tell(encode("status", Place("acc", 7, 0), 0, data, state=False))
        assert one.socket.told[-1] == ("status", 0)


async def test_a_fault_in_writing_ends_the_session() -> None:
    class Broken(HandLine):
        def snapshot(self, *, conflated: bool = False) -> Message | None:
            if conflated:
                raise ValueError("broken")
            return super().snapshot()

    async with served(HandSocket(wired=AT_ONCE), Broken()) as one:
        one.socket.reads.clear()
        for _ in range(40):
            one.line.advance(20_000)
        one.socket.reads.set()
        assert await one.ended() == CloseCode.INTERNAL

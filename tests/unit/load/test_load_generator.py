"""The load generator tells what a server did, also when that is to stall, refuse or hang up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import numpy as np
import pytest
import uvloop
from tests.load.loadgen import (
    BROKEN,
    NOT_CONNECTED,
    TOO_LATE,
    Call,
    Reply,
    request_bytes,
    run_open_loop,
)
from tests.load.zipf import Demand

SEED = 20260105
Handler: TypeAlias = Callable[[bytes], Awaitable[bytes | None]]


@asynccontextmanager
async def served(handle: Handler) -> AsyncIterator[tuple[str, int]]:
    """A server that answers a request's path by `handle`; None hangs up."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await handle(head.split()[1])
                if body is None:
                    break
                size = str(len(body)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\n\r\n" + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield host, port


def calls(count: int, every_s: float = 0.0) -> list[Call]:
    return [Call(n, n * every_s, request_bytes(f"/{n}", {})) for n in range(count)]


async def run(handle: Handler, asked: list[Call], **options: float) -> list[Reply]:
    replies: list[Reply] = []
    async with served(handle) as address:
        grace_s, most = options.get("grace_s", 20), int(options.get("most", 8))
        await run_open_loop(asked, [address], replies.append, grace_s=grace_s, most=most)
    return sorted(replies, key=lambda reply: reply.number)


async def test_every_call_gets_the_reply_that_is_its_own() -> None:
    async def echo(path: bytes) -> bytes:
        return path * 3000

    replies = await run(echo, calls(300, 0.0005))
    assert len(replies) == 300
    assert all(reply.body == f"/{reply.number}".encode() * 3000 for reply in replies)


def test_it_runs_on_the_loop_of_the_benchmarks() -> None:
    async def echo(path: bytes) -> bytes:
        return path

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        replies = runner.run(run(echo, calls(20)))
    assert [reply.body for reply in replies] == [f"/{n}".encode() for n in range(20)]


async def test_a_stall_is_seen_by_every_call_that_was_due_meanwhile() -> None:
    free = asyncio.Event()

    async def stalled(path: bytes) -> bytes:
        if path == b"/9":
            # By then all calls are due; one connection serves them.
            asyncio.get_running_loop().call_later(0.3, free.set)
        await free.wait()
        return path

    replies = await run(stalled, calls(10, 0.001), most=10)
    assert len(replies) == 10
    assert all(reply.latency_s >= 0.3 for reply in replies)


async def test_waiting_for_a_connection_counts() -> None:
    async def slow(path: bytes) -> bytes:
        await asyncio.sleep(0.05)
        return path

    replies = await run(slow, calls(6), most=1)
    assert [reply.status for reply in replies] == [200] * 6
    assert replies[-1].latency_s >= 6 * 0.05
    assert replies[-1].sent_s >= 5 * 0.05


async def test_a_broken_connection_is_told_and_not_asked_again() -> None:
    asked: list[bytes] = []

    async def hangs_up(path: bytes) -> bytes | None:
        asked.append(path)
        return None if path == b"/1" else path

    replies = await run(hangs_up, calls(4), most=1)
    assert [reply.status for reply in replies] == [200, 0, 200, 200]
    assert replies[1].body == BROKEN
    assert asked == [b"/0", b"/1", b"/2", b"/3"]


async def test_what_is_never_answered_is_told_as_such() -> None:
    async def silent(path: bytes) -> bytes:
        if path != b"/0":
            await asyncio.Event().wait()
        return path

    replies = await run(silent, calls(5), most=2, grace_s=0.2)
    assert [reply.status for reply in replies] == [200, 0, 0, 0, 0]
    assert {reply.body for reply in replies[1:]} == {TOO_LATE}


async def test_nobody_listening_is_told() -> None:
    async with served(lambda path: asyncio.sleep(0, path)) as address:
        pass
    replies: list[Reply] = []
    await run_open_loop(calls(3), [address], replies.append, grace_s=5)
    assert [reply.status for reply in replies] == [0, 0, 0]
    assert {reply.body for reply in replies} == {NOT_CONNECTED}


def test_demand_is_the_same_for_a_seed_and_follows_its_shares() -> None:
    demand = Demand(400, SEED)
    drawn = demand.arrivals(500, 200)
    again = Demand(400, SEED).arrivals(500, 200)
    assert np.array_equal(drawn.account, again.account)
    assert np.array_equal(drawn.at_s, again.at_s)
    assert np.all(np.diff(drawn.at_s) >= 0)
    counted = np.bincount(drawn.account, minlength=400) / len(drawn)
    assert np.allclose(counted, demand.shares, atol=0.01)


def test_the_bound_of_issue_4() -> None:
    assert Demand(400, SEED).bound_s(20, 1.5) == pytest.approx(7.2, abs=0.05)


def test_no_periods_beat_the_bound_of_their_placement() -> None:
    rng = np.random.default_rng(SEED)
    demand = Demand(40, SEED)
    placed = np.array_split(rng.permutation(40), 2)
    bound_s = demand.placed_bound_s([list(part) for part in placed], 1.5)
    assert bound_s >= demand.bound_s(2, 1.5)
    for _ in range(200):
        mean_s = 0.0
        for part in placed:
            # Looks a second of each account, 1/1.5 together.
            rates = rng.dirichlet(np.sqrt(demand.shares[part]) * 40) / 1.5
            mean_s += float((demand.shares[part] / (2 * rates)).sum())
        assert mean_s >= bound_s, f"seed {SEED}"

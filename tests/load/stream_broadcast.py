"""The least a server can do for the same watchers: the `websockets` library's own broadcast.

    python -m tests.load.stream_broadcast '{"accounts": 50, "every_s": 0.1, "sizes": [2000, 300]}'

To whoever has connected to `/account-7`, the seventh account's messages go: of the given sizes
by turns, one every so often, made once for all of them. It prints the port it listens on.
"""

import asyncio
import itertools
import logging
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Final, NoReturn

import msgspec
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from mt5kit.domain.instants import iso_utc

HOST: Final = "127.0.0.1"
# The system's default drops handshakes of a crowd that comes at once.
BACKLOG: Final = 2048


class Plan(msgspec.Struct, frozen=True):
    """What is sent.

    Args:
        accounts: How many have watchers.
        every_s: Seconds between two messages of one.
        sizes: Bytes of their payloads, by turns.
    """

    accounts: int
    every_s: float
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Room:
    """An account and who watches it."""

    account: str
    watchers: set[ServerConnection]


def message(account: str, seq: int, size: int) -> str:
    """A message in the envelope of ours, filled up to its size with what compresses to nothing."""
    head = (
        f'{{"type":"position_update","account_id":"{account}","epoch":1,"seq":{seq},'
        f'"ts":"{iso_utc(round(time.time() * 1000))}","data":"'
    )
    return f'{head}{"x" * (size - len(head) - 2)}"}}'


async def tell(room: Room, plan: Plan, offset_s: float) -> NoReturn:
    """Send a room its messages, never two at once to make up for lost time."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(offset_s)
    due_s = loop.time()
    for seq, size in enumerate(itertools.cycle(plan.sizes), start=1):
        broadcast(room.watchers, message(room.account, seq, size))
        due_s = max(due_s + plan.every_s, loop.time())
        await asyncio.sleep(due_s - loop.time())
    raise AssertionError("there is always a next message")


async def run(plan: Plan) -> None:
    """Serve until killed."""
    watchers: defaultdict[str, set[ServerConnection]] = defaultdict(set)

    async def welcome(connection: ServerConnection) -> None:
        assert connection.request is not None
        room = watchers[connection.request.path]
        room.add(connection)
        try:
            await connection.wait_closed()
        finally:
            room.discard(connection)

    quiet = logging.getLogger("quiet")
    quiet.disabled = True
    server = await serve(welcome, HOST, 0, compression=None, backlog=BACKLOG, logger=quiet)
    sys.stdout.write(f"{next(iter(server.sockets)).getsockname()[1]}\n")
    sys.stdout.flush()
    async with asyncio.TaskGroup() as group:
        for number in range(1, plan.accounts + 1):
            room = Room(f"account-{number}", watchers[f"/account-{number}"])
            group.create_task(tell(room, plan, plan.every_s * number / plan.accounts))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(msgspec.json.decode(sys.argv[1], type=Plan)))

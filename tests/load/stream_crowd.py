"""Many clients in one process, and what all of them got in some seconds."""

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.load.figures import quantiles
from tests.load.stream_client import SNAPSHOT, Client, Got, Seat

# Beyond any greeting; a server that stands still must not be waited for.
GREETING_S: Final = 60.0
# Handshakes under way at a time, as a proxy would let them through.
JOINING: Final = 16
# A server that is busy may say so, and is asked again after a while.
ATTEMPTS: Final = 3
AGAIN_S: Final = 1.0
# What was sent at the end of a recording may take this long to arrive.
GRACE_S: Final = 1.0
# How often the client looks how late it is itself.
PROBE_S: Final = 0.01
# A client that is busier than this, or later, measures itself.
BUSY_CORE, LATE_MS = 0.9, 100.0


@dataclass(frozen=True)
class Heard:
    """What one client got."""

    seat: Seat
    got: Sequence[Got]


@dataclass(frozen=True)
class Recording:
    """What a crowd got between two instants, in UTC epoch seconds.

    Attributes:
        heard: By client.
        start_s: When it began.
        end_s: When it ended.
        core: Share of a core that the clients took.
        late_ms: By how much the clients' own event loop was late, p95.
        lost: Why connections were lost, of those that were.
    """

    heard: Sequence[Heard]
    start_s: float
    end_s: float
    core: float
    late_ms: float
    lost: Sequence[str]

    @property
    def seconds(self) -> float:
        """From start to end."""
        return self.end_s - self.start_s

    @property
    def deliveries(self) -> int:
        """Messages that came."""
        return sum(len(each.got) for each in self.heard)

    @property
    def due_until_s(self) -> float:
        """What happened until then had `GRACE_S` to arrive."""
        return self.end_s - GRACE_S

    @property
    def client_bound(self) -> bool:
        """Whether the clients could not keep up, whatever the server did."""
        return self.core > BUSY_CORE or self.late_ms > LATE_MS


class Crowd:
    """Clients that stay between recordings. `refused` counts those that had to come again.

    Args:
        until: How the message begins that greets each.
    """

    def __init__(self, until: bytes = SNAPSHOT) -> None:
        self.clients: list[Client] = []
        self.refused = 0
        self._until = until

    async def join(self, seats: Sequence[Seat]) -> None:
        """Connect clients to these seats and wait until each is greeted.

        Raises:
            ExceptionGroup: One was refused to the last (RuntimeError), was not greeted in time
                (TimeoutError) or cannot connect (OSError).
        """
        turn = asyncio.Semaphore(JOINING)

        async def join_one(seat: Seat) -> None:
            async with turn, asyncio.timeout(GREETING_S):
                for attempt in range(1, ATTEMPTS + 1):
                    try:
                        self.clients.append(await self._greeted(seat))
                    except RuntimeError:
                        if attempt == ATTEMPTS:
                            raise
                        self.refused += 1
                        await asyncio.sleep(AGAIN_S)
                    else:
                        return

        async with asyncio.TaskGroup() as group:
            for seat in seats:
                group.create_task(join_one(seat))

    async def _greeted(self, seat: Seat) -> Client:
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Client(seat, self._until), seat.host, seat.port
        )
        try:
            await client.greeted
        except BaseException:
            client.leave()
            raise
        return client

    def leave(self, clients: Sequence[Client]) -> None:
        """Hang these up."""
        for client in clients:
            client.leave()
        gone = set(clients)
        self.clients = [client for client in self.clients if client not in gone]

    def leave_all(self) -> None:
        """Hang everybody up."""
        self.leave(self.clients)

    async def record(self, seconds: float) -> Recording:
        """Note what comes for so long, and for the grace of what came last."""
        clients = tuple(self.clients)
        for client in clients:
            client.got = []
        # Hundreds of thousands of notes are no garbage, and looking at them takes long.
        gc.disable()
        try:
            start_s, began_s = time.time(), time.process_time()
            late_ms = await _lateness_ms(seconds + GRACE_S)
            end_s, core = time.time(), time.process_time() - began_s
        finally:
            gc.enable()
        heard = []
        for client in clients:
            heard.append(Heard(client.seat, client.got or ()))
            client.got = None
        return Recording(
            heard=heard,
            start_s=start_s,
            end_s=end_s,
            core=core / (end_s - start_s),
            late_ms=late_ms,
            lost=[client.lost for client in clients if client.lost],
        )


async def _lateness_ms(seconds: float) -> float:
    """How late this event loop wakes who sleeps, p95 over so many seconds."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds
    lateness = []
    while (due_s := loop.time() + PROBE_S) < end_s:
        await asyncio.sleep(PROBE_S)
        lateness.append(loop.time() - due_s)
    return quantiles(lateness, 1000)[1]

"""Accounts of a cluster that are watched, and what some seconds of it look like."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from tests.cluster import Cluster, ClusterAccount
from tests.load.stream_client import Client, Got, Seat
from tests.load.stream_crowd import Crowd, Heard, Recording
from tests.load.stream_latency import (
    POSITIONS,
    TELLING,
    Floats,
    Held,
    Latencies,
    held_in,
    joined,
    latencies,
    news,
    read_head,
    schedule_of,
    skipped_in,
    told_by,
)
from tests.load.stream_meter import Reading, memory
from tests.replica import HOST, StreamReplica

from mt5kit.state.keys import Keys
from mt5kit.state.redis import TicketStore, open_redis
from terminal_sim.market.prices import Market

# The simulator's, where a scenario names none.
SEED: Final = 1
# Of a seat: at the replica that polls its account, or at one that is relayed to through Redis.
OWNER, OTHER = "owner", "other"
# A crowd that comes at once is let in one after another.
TICKET_S: Final = 600.0
# As many payloads show what is sent to an account.
SAMPLE: Final = 200


@dataclass(frozen=True)
class Costs:
    """What some seconds of streaming took.

    Attributes:
        watchers: Connections.
        accounts: Accounts that were watched.
        seconds: How long.
        deliveries: Messages that arrived at clients.
        ran_s: Processor seconds of the servers together.
        waited_s: Seconds they would have run, had there been a processor for them.
        client_core: Share of a core that the clients took.
        client_late_ms: By how much the clients were late themselves, p95.
        client_bound: Whether the clients could not keep up.
        idle: Share of the machine that nobody wanted.
        memory: Bytes of the servers together, after it.
    """

    watchers: int
    accounts: int
    seconds: float
    deliveries: int
    ran_s: float
    waited_s: float
    client_core: float
    client_late_ms: float
    client_bound: bool
    idle: float
    memory: int

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds

    @property
    def per_cpu_s(self) -> float:
        """Deliveries for a second of the servers' processor time."""
        return self.deliveries / self.ran_s if self.ran_s else 0.0

    @property
    def cores(self) -> float:
        """Processors the servers took."""
        return self.ran_s / self.seconds


@dataclass(frozen=True)
class Delivered:
    """How late what was delivered came.

    Attributes:
        by_place: Latencies of price changes by what a seat says of its place.
        positions: Of the same changes to the next `position_update`, ms.
        path: From a message's look to its receipt, of each message and client, ms.
        skipped: Numbers replaced by a snapshot because a client fell behind.
        sizes: Bytes of messages to one account, in their order.
    """

    by_place: Mapping[str, Latencies]
    positions: Floats
    path: Floats
    skipped: int
    sizes: tuple[int, ...]

    @property
    def all(self) -> Latencies:
        """Of every client."""
        return joined(list(self.by_place.values()))


class Stage:
    """Watchers of a cluster's accounts.

    Args:
        cluster: With its accounts connected.
        accounts: Those to be watched.
        replicas: That serve them; must stay the same processes.
    """

    def __init__(
        self,
        cluster: Cluster,
        accounts: Sequence[ClusterAccount],
        replicas: Sequence[StreamReplica],
    ) -> None:
        self.crowd = Crowd()
        self.accounts = accounts
        self.replicas = replicas
        self._cluster = cluster
        self._pids = [each.pid for each in replicas if each.pid is not None]
        self._market = Market(SEED)
        self._held: dict[str, Held] = {}

    async def fill(self, each: int) -> None:
        """Have every account watched by so many clients, as many of them at each replica."""
        present = defaultdict(list)
        for client in self.crowd.clients:
            present[client.seat.account].append(client)
        too_many: list[Client] = []
        missing: list[tuple[ClusterAccount, StreamReplica]] = []
        for account in self.accounts:
            here = present[account.account_id]
            too_many += here[each:]
            missing += [
                (account, self.replicas[number % len(self.replicas)])
                for number in range(len(here), each)
            ]
        self.crowd.leave(too_many)
        owners = await asyncio.to_thread(self._owners)
        await self.crowd.join(await self._seats(missing, owners))

    def memory(self) -> int:
        """Bytes the replicas have now."""
        return sum(map(memory, self._pids))

    async def record(self, seconds: float) -> tuple[Costs, Recording]:
        """What so many seconds cost, and what came in them."""
        return await recorded(self.crowd, self._pids, seconds)

    def judge(self, recording: Recording) -> Delivered:
        """Latencies of a recording; takes a while."""
        by_account = defaultdict(list)
        for each in recording.heard:
            by_account[each.seat.account].append(each)
        places: defaultdict[str, list[Latencies]] = defaultdict(list)
        positions: list[Latencies] = []
        for account_id, heard in by_account.items():
            schedule = schedule_of(one for each in heard for one in each.got)
            changes = news(self._market, self._held_of(account_id), schedule.looks)
            inside = (changes > recording.start_s * 1000) & (changes < recording.due_until_s * 1000)
            changes, end_ms = changes[inside], recording.end_s * 1000
            told = [(each.seat.place, told_by(each.got)) for each in heard]
            for place in {place for place, _ in told}:
                here = [one for where, one in told if where == place]
                places[place].append(latencies(changes, schedule, here, end_ms))
            only = [[one for one in each if one.kind == POSITIONS] for _, each in told]
            positions.append(latencies(changes, schedule, only, end_ms))
        return Delivered(
            by_place={place: joined(parts) for place, parts in sorted(places.items())},
            positions=joined(positions).total,
            path=path_ms(recording.heard),
            skipped=skipped_in(each.got for each in recording.heard),
            sizes=sample_sizes(recording.heard[0].got),
        )

    def _held_of(self, account_id: str) -> Held:
        """What an account holds, from a snapshot that some client was greeted with."""
        if account_id not in self._held:
            greeted = (one for one in self.crowd.clients if one.seat.account == account_id)
            self._held[account_id] = held_in(next(greeted).greeting)
        return self._held[account_id]

    def _owners(self) -> dict[str, str | None]:
        return {one.account_id: self._cluster.streamer_of(one) for one in self.accounts}

    async def _seats(
        self,
        wanted: Sequence[tuple[ClusterAccount, StreamReplica]],
        owners: Mapping[str, str | None],
    ) -> list[Seat]:
        """A ticket for each, straight from the store: the API does no more for one."""
        redis = open_redis(self._cluster.redis.url)
        try:
            tickets = TicketStore(redis, Keys())
            seats = []
            for account, replica in wanted:
                ticket = await tickets.issue(account.account_id, str(account.user_id), TICKET_S)
                path = f"/ws/account/{account.account_id}?ticket={ticket}"
                place = OWNER if owners[account.account_id] == replica.name else OTHER
                seats.append(Seat(HOST, replica.port, path, account.account_id, place))
        finally:
            await redis.aclose()
        return seats


async def recorded(crowd: Crowd, pids: Sequence[int], seconds: float) -> tuple[Costs, Recording]:
    """What a crowd got in so many seconds, and what that cost these servers."""
    before = Reading.of(pids)
    recording = await crowd.record(seconds)
    after = Reading.of(pids)
    costs = Costs(
        watchers=len(recording.heard),
        accounts=len({each.seat.account for each in recording.heard}),
        seconds=recording.seconds,
        deliveries=recording.deliveries,
        ran_s=after.ran_since(before),
        waited_s=after.waited_since(before),
        client_core=recording.core,
        client_late_ms=recording.late_ms,
        client_bound=recording.client_bound,
        idle=after.idle_since(before),
        memory=sum(map(memory, pids)),
    )
    return costs, recording


def path_ms(heard: Iterable[Heard]) -> Floats:
    """From look to receipt of every message that tells of a look."""
    return np.array([one.at_ms - one.look_ms for each in heard for one in told_by(each.got)])


def sample_sizes(got: Sequence[Got]) -> tuple[int, ...]:
    """Bytes of the first messages that tell of looks."""
    return tuple(one.size for one in got if read_head(one.head).kind in TELLING)[:SAMPLE]

"""Clients of a cluster's streams, which compare what they are told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tests.cluster import Cluster, ClusterAccount
from tests.replica import StreamReplica
from tests.waiting import wait_for
from tests.watch_judge import Mirror
from tests.watch_ledger import Ledger
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE_S = 30.0
SOME = 4


class Client:
    """A client of one account, which may have several sockets one after another."""

    def __init__(self, cluster: Cluster, account: ClusterAccount, ledger: Ledger) -> None:
        self.account = account
        self.mirror = Mirror(account.account_id, account.login, ledger, account.account_id)
        self._cluster = cluster

    @contextlib.asynccontextmanager
    async def at(
        self, replica: StreamReplica, *, resume: bool = False
    ) -> AsyncIterator[ClientConnection]:
        """A socket, greeted; with `resume` by the last socket's ticket, after what it told."""
        ticket, since = self.mirror.resume_ticket, self.mirror.since
        if not resume:
            ticket, since = await asyncio.to_thread(self._cluster.assign, self.account), None
        query = f"ticket={ticket}" + (f"&since={since[0]}:{since[1]}" if since else "")
        url = f"{replica.ws_url}/ws/account/{self.account.account_id}?{query}"
        async with connect(url, max_size=None, ping_interval=None, proxy=None) as socket:
            self.mirror.begin(replica.name, since)
            await self.hear(socket)
            await self.hear_until(socket, lambda: self.mirror.account is not None)
            yield socket

    async def hear(self, socket: ClientConnection) -> None:
        """Take the next message."""
        async with asyncio.timeout(PATIENCE_S):
            self.mirror.hear(await socket.recv(decode=False))

    async def hear_until(self, socket: ClientConnection, enough: Callable[[], object]) -> None:
        """Take messages until it is enough."""
        async with asyncio.timeout(PATIENCE_S):
            while not enough():
                await self.hear(socket)

    async def hear_some(self, socket: ClientConnection) -> None:
        """Take so many numbered messages that the stream surely goes on."""
        wanted = self.mirror.seq + SOME
        await self.hear_until(socket, lambda: self.mirror.seq >= wanted)

    async def hear_trade(self, socket: ClientConnection) -> None:
        """Open a position at the broker and take messages until it is told."""
        before = await asyncio.to_thread(self._cluster.tickets, self.account)
        await asyncio.to_thread(trade, self._cluster, self.account)
        await self.hear_until(socket, lambda: self.mirror.positions.keys() > before)

    async def hear_to_the_end(self, socket: ClientConnection) -> int | None:
        """Take messages until the socket is closed; the code."""
        with contextlib.suppress(ConnectionClosed):
            await self.hear_until(socket, lambda: False)
        return socket.close_code


def trade(cluster: Cluster, account: ClusterAccount) -> None:
    wanted = {"symbol": "EURUSD", "type": "buy", "volume": 0.01}
    path = f"/accounts/{account.server}/{account.login}/positions"
    cluster.control.post(path, json=wanted).raise_for_status()


def owner_and_other(
    cluster: Cluster, account: ClusterAccount
) -> tuple[StreamReplica, StreamReplica]:
    """The replica that polls an account, and the one that does not."""
    cluster.assign(account)
    name = str(wait_for(lambda: cluster.streamer_of(account), "nobody owns the stream"))
    [other] = set(cluster.ws_replicas) - {name}
    return cluster.ws_replicas[name], cluster.ws_replicas[other]

"""Clients that watch accounts: each comes, reads, misbehaves as it likes, and comes back."""

import asyncio
import hashlib
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from tests.cluster import Cluster, ClusterAccount
from tests.judge import ALLOWED_CODES
from tests.replica import HOST, StreamReplica
from tests.watch_habits import CALM, Habits
from tests.watch_judge import Mirror
from tests.watch_ledger import Ledger
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

# Less than the kernel gives, so that whoever does not read is soon felt.
NARROW_BYTES = 4096
HANDSHAKE_S = 3.0
# Of a new try after a refusal: a real client waits longer, but we have no time.
PAUSE_S = (0.02, 0.2)
# Who always goes to the same replica as long as that is listed.
FAITHFUL = 0.7
WITHOUT_RESUMING = 0.15
GARBAGE: tuple[str | bytes, ...] = ("nonsense", '{"type":"buy"}', b"\x00\xff", "[]", "9" * 5000)
# Codes nobody may be closed with here: the account is there, its owner has not ended anything.
FORBIDDEN = frozenset((1011, 4403, 4404, 4409, 4429))


class Watcher:
    """Watches one account until `stop`.

    Args:
        cluster: Where.
        account: What.
        ledger: Of what all watchers see.
        name: Its own.
        chance: Of where it goes and what it does.
        habits: What it does.
        client: For tickets.
    """

    def __init__(  # noqa: PLR0913 - what a client is
        self,
        cluster: Cluster,
        account: ClusterAccount,
        ledger: Ledger,
        *,
        name: str,
        chance: random.Random,
        client: httpx.AsyncClient,
        habits: Habits = CALM,
    ) -> None:
        self.account = account
        self.name = name
        self.mirror = Mirror(account.account_id, account.login, ledger, name)
        self.quiet = False
        self._cluster = cluster
        self._ledger = ledger
        self._chance = chance
        self._client = client
        self._habits = habits
        self._over = asyncio.Event()

    def stop(self) -> None:
        """Go home."""
        self._over.set()

    async def run(self) -> None:
        """Come and come back until stopped."""
        watching = asyncio.create_task(self._watch())
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait([watching, over], return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        watching.cancel()
        outcomes = await asyncio.gather(watching, return_exceptions=True)
        failed = [one for one in outcomes if isinstance(one, Exception)]
        if failed:
            raise failed[0]

    async def _watch(self) -> None:
        while True:
            await self._visit()
            await asyncio.sleep(self._chance.uniform(*PAUSE_S))

    # -- coming ---------------------------------------------------------------------------------

    async def _visit(self) -> None:
        replica = self._choose()
        if replica is None:
            return
        since = self.mirror.since if self._chance.random() >= WITHOUT_RESUMING else None
        ticket = await self._ticket()
        if ticket is None:
            return
        query = f"ticket={ticket}" + (f"&since={since[0]}:{since[1]}" if since else "")
        url = f"{replica.ws_url}/ws/account/{self.account.account_id}?{query}"
        try:
            opened = await self._open(url, replica)
        except (OSError, TimeoutError, InvalidHandshake, InvalidMessage) as failure:
            self._ledger.counts[f"handshake: {type(failure).__name__}"] += 1
            return
        self.mirror.begin(replica.name, since)
        try:
            await self._stay(opened)
        except ConnectionClosed:
            self._part(opened)
        finally:
            opened.transport.abort()
            await opened.wait_closed()

    async def _open(self, url: str, replica: StreamReplica) -> ClientConnection:
        narrow = socket.socket()
        try:
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
            narrow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(narrow, (HOST, replica.port))
            return await connect(
                url,
                sock=narrow,
                max_size=None,
                max_queue=1,
                compression=None,
                ping_interval=None,
                proxy=None,
                open_timeout=HANDSHAKE_S,
            )
        except BaseException:
            narrow.close()
            raise

    def _choose(self) -> StreamReplica | None:
        """As a consistent hash would have it, or any."""
        listed = self._cluster.ws_listed
        if not listed or self._chance.random() >= FAITHFUL:
            return self._chance.choice(listed) if listed else None

        def weight(replica: StreamReplica) -> bytes:
            return hashlib.sha256(f"{replica.name} {self.account.account_id}".encode()).digest()

        return max(listed, key=weight)

    async def _ticket(self) -> str | None:
        kept, self.mirror.resume_ticket = self.mirror.resume_ticket, None
        if kept is not None and self._chance.random() >= WITHOUT_RESUMING:
            return kept
        replica = self._chance.choice(self._cluster.serving)
        body = {"account_id": self.account.account_id, "user_id": str(self.account.user_id)}
        answer = await self._client.post(
            f"{replica.url}/api/ws/assign", json=body, headers=self.account.headers()
        )
        if answer.is_success:
            return str(answer.json()["ticket"])
        failure = answer.json()
        self._ledger.counts[f"assign: {failure['code']}"] += 1
        if failure["code"] not in ALLOWED_CODES:
            self.mirror.blame(f"no ticket: {failure}")
        return None

    def _part(self, opened: ClientConnection) -> None:
        code = opened.close_code or 1006
        self._ledger.closed[code] += 1
        rude = "garbage" in self._habits.acts
        if code in FORBIDDEN or (code == 4400 and not rude):
            self.mirror.blame(f"closed with {code}, {opened.close_reason}")

    # -- staying --------------------------------------------------------------------------------

    async def _stay(self, opened: ClientConnection) -> None:
        """Read, and now and then do something else; ends when that was to leave."""
        loop = asyncio.get_running_loop()
        acts: dict[str, Callable[[ClientConnection], Awaitable[bool]]] = {
            "drop": self._drop,
            "leave": self._leave,
            "stall": self._stall,
            "flood": self._flood,
            "garbage": self._talk_nonsense,
            "refresh": self._refresh,
            "ping": self._ping,
        }
        due = loop.time() + self._chance.uniform(0, self._habits.every_s)
        while True:
            busy = self._habits.acts and not self.quiet
            try:
                async with asyncio.timeout_at(due if busy else None):
                    self.mirror.hear(await opened.recv(decode=False))
            except TimeoutError:
                due = loop.time() + self._chance.uniform(0, self._habits.every_s)
                act = self._chance.choice(self._habits.acts)
                self._ledger.counts[f"act: {act}"] += 1
                if await acts[act](opened):
                    return

    async def _drop(self, opened: ClientConnection) -> bool:
        opened.transport.abort()
        return True

    async def _leave(self, opened: ClientConnection) -> bool:
        await opened.close()
        return True

    async def _stall(self, _: ClientConnection) -> bool:
        await asyncio.sleep(self._chance.uniform(0, self._habits.stall_s))
        return False

    async def _flood(self, opened: ClientConnection) -> bool:
        for _ in range(200):
            await opened.send('{"type":"ping"}')
        return False

    async def _talk_nonsense(self, opened: ClientConnection) -> bool:
        for _ in range(self._chance.randint(1, 4)):
            await opened.send(self._chance.choice(GARBAGE))
        return False

    async def _refresh(self, opened: ClientConnection) -> bool:
        await opened.send('{"type":"refresh"}')
        return False

    async def _ping(self, opened: ClientConnection) -> bool:
        await opened.send('{"type":"ping"}')
        return False

    # -- the end --------------------------------------------------------------------------------

    def unwell(self) -> str | None:
        """Why this watcher has no live state now; None when it has."""
        if self.mirror.account is None:
            return f"{self.name} has no snapshot"
        if self.mirror.status["state"] != "connected":
            return f"{self.name} is told {self.mirror.status}"
        return None

    def differs(self, truth: dict[str, Any]) -> str | None:
        """What this watcher believes otherwise than its broker; None when all is the same."""
        mirror = self.mirror
        doubt = self.unwell()
        if doubt is not None or mirror.account is None:
            return doubt
        believed = (
            mirror.account["balance"],
            {one: _figures(row, "price_open") for one, row in mirror.positions.items()},
            {one: _figures(row, "price_open") for one, row in mirror.orders.items()},
        )
        known = (
            truth["balance"],
            {row["ticket"]: _figures(row, "price_open") for row in truth["positions"]},
            {row["ticket"]: _figures(row, "price") for row in truth["orders"]},
        )
        if believed == known:
            return None
        return f"{self.name} believes {believed}, the broker has {known}"


def _figures(row: dict[str, Any], price: str) -> tuple[str, float, float, float, float]:
    volume = row["volume"] if "volume" in row else row["volume_current"]
    return row["symbol"], volume, row[price], row["sl"], row["tp"]

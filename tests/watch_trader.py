"""Somebody who trades at the simulated broker, as people do at terminals of their own."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import httpx
from tests.cluster_plan import CONTROL_KEY, ClusterAccount
from tests.outside_world import OutsideWorld
from tests.waiting import PATIENCE_S

SYMBOLS = ("EURUSD", "GBPUSD", "XAUUSD")
# Where the market never comes, so that nothing is filled or closed by itself.
FAR_BELOW = 0.4
MOST = 8
# Of positions that are closed by half first.
PARTLY = 0.5
SMALLEST = 0.01
PAUSE_S = (0.02, 0.25)
# What is refused now, or has gone meanwhile, is no fault of anybody's.
PASSING = frozenset((httpx.codes.CONFLICT, httpx.codes.NOT_FOUND))

# Method, path below the account, and what the request has besides.
Idea = tuple[str, str, dict[str, Any]]


class Trader:
    """Opens, changes and closes at random until `stop`.

    Args:
        world: Where.
        accounts: Whose.
        chance: Of what is done.
    """

    def __init__(
        self, world: OutsideWorld, accounts: Sequence[ClusterAccount], chance: random.Random
    ) -> None:
        self.done = 0
        self._accounts = accounts
        self._chance = chance
        self._over = False
        self._client = httpx.AsyncClient(
            base_url=world.simulator.ready().control_url,
            headers={"X-Supervisor-Key": CONTROL_KEY},
            timeout=PATIENCE_S,
        )

    def stop(self) -> None:
        """Finish what is being done."""
        self._over = True

    async def run(self) -> None:
        """Trade until stopped.

        Raises:
            httpx.HTTPStatusError: The simulator cannot do what it is asked.
        """
        async with self._client:
            while not self._over:
                await self.act(self._chance.choice(self._accounts))
                await asyncio.sleep(self._chance.uniform(*PAUSE_S))

    async def act(self, account: ClusterAccount) -> None:
        """Do one thing to an account."""
        path = f"/accounts/{account.server}/{account.login}"
        seen = (await self._client.get(path)).raise_for_status().json()["account"]
        method, where, options = self._idea(seen)
        answer = await self._client.request(method, path + where, **options)
        if answer.status_code not in PASSING:
            answer.raise_for_status()
            self.done += 1

    def _idea(self, seen: dict[str, Any]) -> Idea:
        positions, orders = seen["positions"], seen["orders"]
        what = self._chance.choice(("open", "close", "stops", "place", "move", "remove", "pay"))
        if what in {"close", "stops"} and not positions:
            what = "open"
        if what in {"move", "remove"} and not orders:
            what = "place"
        if what in {"open", "place", "pay"}:
            return self._new(what, len(positions), len(orders))
        if what in {"close", "stops"}:
            return self._at_position(what, self._chance.choice(positions))
        where = f"/orders/{self._chance.choice(orders)['ticket']}"
        if what == "remove":
            return "DELETE", where, {}
        return "PATCH", where, _body(price=self._far_below())

    def _new(self, what: str, positions: int, orders: int) -> Idea:
        symbol = self._chance.choice(SYMBOLS)
        if what == "open" and positions < MOST:
            kind = self._chance.choice(("buy", "sell"))
            return "POST", "/positions", _body(symbol=symbol, type=kind, volume=0.02)
        if what == "place" and orders < MOST:
            wanted = _body(symbol=symbol, type="buy_limit", volume=SMALLEST, price=FAR_BELOW)
            return "POST", "/orders", wanted
        return "POST", "/deposits", _body(amount=float(self._chance.randint(1, 50)))

    def _at_position(self, what: str, held: dict[str, Any]) -> Idea:
        where = f"/positions/{held['ticket']}"
        if what == "stops":
            stop = "sl" if held["type"] == "buy" else "tp"
            return "PATCH", where, _body(**{stop: self._far_below()})
        half = held["volume"] > SMALLEST and self._chance.random() < PARTLY
        return "DELETE", where, {"params": {"volume": SMALLEST}} if half else {}

    def _far_below(self) -> float:
        return round(self._chance.uniform(0.1, FAR_BELOW), 4)


def _body(**fields: object) -> dict[str, Any]:
    return {"json": fields}

"""From a price change in a terminal to the frame in a client, with the demo running."""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import websockets
from tests.load.figures import Table, quantiles

from terminal_sim.market.prices import Market

WATCH_S = 30.0
# The stream signs in and settles before anything is counted.
SETTLE_S = 4.0
MERGING_MS = 100.0
ALLOWED_MS = 60.0
STATE_TYPES = ("position_update", "account_update", "order_update", "status")


def measure() -> Table:
    """Latencies of every price change of the three demo accounts' positions."""
    with tempfile.TemporaryDirectory(prefix="mt5-bench-") as directory:
        data = Path(directory) / "local"
        stack = subprocess.Popen(
            [sys.executable, "-m", "local_stack", "run", "--port", "0", "--data-dir", str(data)],
            stdout=subprocess.DEVNULL,
        )
        try:
            credentials = _await_credentials(data, stack)
            frames = asyncio.run(_watch(credentials))
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(60)
        seed = json.loads((data / "demo.json").read_text())["seed"]
    market = Market(seed)
    first = _latencies(market, frames, STATE_TYPES)
    totals = [received - change for change, _, received in first]
    positions = _latencies(market, frames, ("position_update",))
    rows = [
        ("price change → first state frame that knows of it", *_row(totals)),
        (
            "of it: price change → the frame's look",
            *_row([look - change for change, look, _ in first]),
        ),
        ("of it: look → client", *_row([received - look for _, look, received in first])),
        (
            "price change → next `position_update`, every second slot at the latest",
            *_row([received - change for change, _, received in positions]),
        ),
    ]
    p95 = quantiles(totals)[1]
    return Table(
        "From a price change in the terminal to the frame in a client",
        f"`make run`'s stack, {len(frames)} demo accounts streamed for {WATCH_S:.0f} s to one"
        f" plain client each: {len(totals)} price changes of held symbols, each timed to the"
        " first state frame whose look came after it. State frames of an account are at least"
        " 100 ms apart, so a change waits up to 100 ms to be merged with the next ones; positions"
        " and account take turns, so a change is in one of them first and in the other next.",
        ("ms", "p50", "p95", "p99"),
        rows,
        f"p95 is {p95 - MERGING_MS:.0f} ms beyond the {MERGING_MS:.0f} ms of merging"
        f" (asked for: under {ALLOWED_MS:.0f} ms).",
    )


def _row(values: list[float]) -> tuple[str, str, str]:
    p50, p95, p99 = quantiles(values)
    return f"{p50:.1f}", f"{p95:.1f}", f"{p99:.1f}"


def _await_credentials(data: Path, stack: "subprocess.Popen[bytes]") -> dict[str, Any]:
    deadline = time.monotonic() + 120
    path = data / "credentials.json"
    while not path.exists():
        if stack.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the stack did not start")
        time.sleep(0.05)
    credentials: dict[str, Any] = json.loads(path.read_text())
    return credentials


async def _watch(credentials: dict[str, Any]) -> list[list[tuple[float, dict[str, Any]]]]:
    connected = [one for one in credentials["accounts"] if one["connected"]]
    return await asyncio.gather(*(_watch_one(credentials, one) for one in connected))


async def _watch_one(
    credentials: dict[str, Any], account: dict[str, Any]
) -> list[tuple[float, dict[str, Any]]]:
    headers = {"X-API-Key": credentials["api_key"], "X-User-ID": account["user_id"]}
    async with httpx.AsyncClient(base_url=credentials["base_url"], headers=headers) as client:
        body = {"account_id": account["account_id"]}
        assigned = (await client.post("/api/ws/assign", json=body)).raise_for_status().json()
    frames = []
    until = time.time() + SETTLE_S + WATCH_S
    async with websockets.connect(assigned["websocket_url"]) as socket:
        while (left := until - time.time()) > 0:
            try:
                raw = await asyncio.wait_for(socket.recv(), left)
            except TimeoutError:
                break
            received_ms = time.time() * 1000
            frames.append((received_ms, json.loads(raw)))
    return frames


def _latencies(
    market: Market,
    accounts: list[list[tuple[float, dict[str, Any]]]],
    types: Sequence[str],
) -> list[tuple[float, float, float]]:
    """(change, look, receipt) in epoch milliseconds of every price change of every account.

    The look and the receipt are those of the first frame of these types whose look came after
    the change.
    """
    latencies: list[tuple[float, float, float]] = []
    for frames in accounts:
        settled = frames[0][0] + SETTLE_S * 1000
        states = [
            (_epoch_ms(frame["ts"]), received_ms)
            for received_ms, frame in frames
            if frame["type"] in types and received_ms > settled
        ]
        looks = [look_ms for look_ms, _ in states]
        for change_ms in _changes(market, frames, settled, looks[-1]):
            look_ms, received_ms = states[bisect_left(looks, change_ms)]
            latencies.append((change_ms, look_ms, received_ms))
    return latencies


def _changes(
    market: Market, frames: list[tuple[float, dict[str, Any]]], start_ms: float, end_ms: float
) -> list[float]:
    """Instants at which the price that a position is valued at changed."""
    held = {
        (position["symbol"], "bid" if position["type"] == 0 else "ask")
        for _, frame in frames
        if frame["type"] == "snapshot"
        for position in frame["data"]["positions"]
        # Robots' positions come and go; the others stay.
        if position["comment"] != "robot"
    }
    instants: list[float] = []
    for symbol, side in held:
        ticks = market.ticks(symbol, int(start_ms), int(end_ms))
        moved = np.flatnonzero(np.diff(ticks[side])) + 1
        instants += ticks["time_msc"][moved].tolist()
    return instants


def _epoch_ms(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000

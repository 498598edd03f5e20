"""Before everything ends: terminals say that they drain, and their clients leave."""

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

_TCP = Path("/proc/self/net/tcp")
_ESTABLISHED = "01"
_ANY = bytes(4)
# Clients that change their connection are away for a moment; whoever left stays away.
QUIET_S = 2.0
_STEP_S = 0.1


def occupied(host: str, ports: Collection[int]) -> bool:
    """Return whether a client is connected to one of these ports of an address of ours."""
    address = socket.inet_aton(socket.gethostbyname(host))
    rows = (row.split() for row in _TCP.read_text(encoding="ascii").splitlines()[1:])
    return any(
        state == _ESTABLISHED and _is(local, address, ports) for _, local, _, state, *_ in rows
    )


def _is(local: str, address: bytes, ports: Collection[int]) -> bool:
    at, _, port = local.rpartition(":")
    # The kernel writes an address as a number of this machine.
    here = int(at, 16).to_bytes(4, sys.byteorder)
    return address in {_ANY, here} and int(port, 16) in ports


async def until_left(connected: Callable[[], bool], limit_s: float, hurry: asyncio.Event) -> bool:
    """Wait until nobody has been connected for a while.

    Args:
        connected: Whether somebody is.
        limit_s: How long to wait at most.
        hurry: Ends the waiting.

    Returns:
        Whether everybody has left.
    """
    began = seen = time.monotonic()
    while not hurry.is_set():
        now = time.monotonic()
        if connected():
            seen = now
        elif now - seen >= QUIET_S:
            return True
        if now - began >= limit_s:
            return False
        with suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), _STEP_S)
    return False

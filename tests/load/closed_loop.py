"""As many answers as a server gives: connections that ask again as soon as they are answered."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from tests.load.loadgen import request_bytes

# Beyond any answer; a server that stands still must not be waited for.
HANG_S = 30.0
_LENGTH = b"content-length: "


@dataclass(frozen=True)
class Target:
    """What is asked of whom."""

    host: str
    port: int
    path: str
    headers: Mapping[str, str]
    pid: int


class _Tally:
    def __init__(self, lines: int) -> None:
        self.answers = 0
        self.over = False
        self.open = lines
        self.failure: str | None = None
        self.ended = asyncio.get_running_loop().create_future()


class _Line(asyncio.Protocol):
    """One connection; reads no more of an answer than where it ends and that it is good."""

    def __init__(self, request: bytes, tally: _Tally) -> None:
        self._request = request
        self._tally = tally
        self._got = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        got = self._got = self._got + data
        head = got.find(b"\r\n\r\n")
        if head < 0:
            return
        at = got.find(_LENGTH, 0, head) + len(_LENGTH)
        if len(got) < head + 4 + int(got[at : got.index(b"\r", at)]):
            return
        self._got = b""
        if not got.startswith(b"HTTP/1.1 200 "):
            self._tally.failure = got.decode(errors="replace")
        assert self._transport is not None
        if self._tally.over or self._tally.failure:
            self._transport.close()
            return
        self._tally.answers += 1
        self._transport.write(self._request)

    def connection_lost(self, _error: Exception | None) -> None:
        tally = self._tally
        tally.open -= 1
        if not tally.over:
            tally.failure = tally.failure or "the server hung up"
        if tally.open == 0 and not tally.ended.done():
            tally.ended.set_result(None)


async def read_for(target: Target, seconds: float, lines: int) -> int:
    """The answers of so many seconds over so many connections.

    Raises:
        RuntimeError: An answer was not a 200, or the server hung up.
    """
    loop = asyncio.get_running_loop()
    tally = _Tally(lines)
    request = request_bytes(target.path, dict(target.headers))
    for _ in range(lines):
        await loop.create_connection(lambda: _Line(request, tally), target.host, target.port)
    await asyncio.wait([tally.ended], timeout=seconds)
    tally.over = True
    await asyncio.wait_for(tally.ended, HANG_S)
    if tally.failure is not None:
        raise RuntimeError(f"{target.path}: {tally.failure}")
    return tally.answers

"""Servers behind names: a DNS that answers as it is told, and a TCP door to a Unix socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

HERE = "127.0.0.1"
INSIDE = ["127.0.0.0/8"]
ELSEWHERE = ["10.77.2.0/24"]


@dataclass
class Dns:
    """What names resolve to, and which were asked for; the next `failures` questions fail."""

    names: dict[str, list[str]] = field(default_factory=dict)
    failures: int = 0
    asked: list[str] = field(default_factory=list)

    def rule(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Answer in the place of the system's."""
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: str, port: Any, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if self.failures:
            self.failures -= 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kind = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [(*kind, (address, port)) for address in self.names[host]]


class Door:
    """A TCP port that leads to a Unix socket.

    Attributes:
        come: How many connections there were.
    """

    def __init__(self, path: str) -> None:
        self.come = 0
        self._path = path
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """End every connection, as a server that is restarted does."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.come += 1
        behind, answers = await asyncio.open_unix_connection(self._path)
        self._writers |= {writer, answers}
        with contextlib.suppress(OSError):
            await asyncio.gather(_copied(reader, answers), _copied(behind, writer))
        self._writers -= {writer, answers}


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(65_536):
        writer.write(part)
    writer.close()


@contextlib.asynccontextmanager
async def door_to(path: str) -> AsyncIterator[Door]:
    """A door for as long as the block lasts."""
    door = Door(path)
    door._server = await asyncio.start_server(door._lead, HERE, 0)
    try:
        yield door
    finally:
        door.cut()
        door._server.close()

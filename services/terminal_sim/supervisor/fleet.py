"""The brokers and terminals of a supervisor."""

import asyncio
import socket
from collections.abc import Coroutine, Iterator, Sequence
from multiprocessing import forkserver
from typing import Any, TypeVar

import msgspec

from terminal_sim.broker.process import BrokerSettings
from terminal_sim.supervisor.broker_link import BrokerLink
from terminal_sim.supervisor.member import Member, Starting
from terminal_sim.supervisor.members import BrokerMember, TerminalMember
from terminal_sim.terminal.process import Settings

S = TypeVar("S", Settings, BrokerSettings)
Address = tuple[str, int]
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - read, not bound


class BrokerFailed(Exception):
    """A broker has ended before it ever listened; the message is one line for a person."""


class Fleet:
    """All processes of a supervisor.

    Args:
        terminals: One for each terminal; port 0 takes a free port and keeps it. Their brokers are
            those elsewhere; the brokers of this fleet are added.
        brokers: One for each broker run here, likewise.

    Attributes:
        brokers: By the names of their servers.
        links: To these brokers, likewise.
        terminals: By their numbers.
        servers: All names; the first is the one a login without a server means at first.
        elsewhere: Where the brokers are that others run.
        draining: Show running terminals as draining.

    Raises:
        OSError: A port is in use.
    """

    def __init__(
        self,
        terminals: Sequence[Settings],
        brokers: Sequence[BrokerSettings],
        elsewhere: dict[str, Address],
    ) -> None:
        starting = Starting()
        self._reserved: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.draining = False
        self.elsewhere = elsewhere
        try:
            settled = [self._settle(each) for each in brokers]
            addresses = {each.server: (_reachable(each.host), each.port) for each in settled}
            known = {**addresses, **elsewhere}
            self.servers = tuple(known)
            seated = [
                self._settle(msgspec.structs.replace(each, brokers=known)) for each in terminals
            ]
        except OSError:
            self._release()
            raise
        self.brokers = {each.server: BrokerMember(each, starting) for each in settled}
        self.links = {
            name: BrokerLink(member, addresses[name], member.settings.key)
            for name, member in self.brokers.items()
        }
        self.terminals = {each.number: TerminalMember(each, starting) for each in seated}

    def __iter__(self) -> Iterator[Member]:
        yield from self.brokers.values()
        yield from self.terminals.values()

    async def start(self) -> None:
        """Start every broker, then every terminal, and return when all listen.

        To be called in the main thread: the parent of the processes ends with its thread.

        Raises:
            BrokerFailed: A broker cannot be run.
        """
        forkserver.ensure_running()
        await asyncio.gather(*(self._first_start(each) for each in self.brokers.values()))
        for link in self.links.values():
            self._keep(link.keep())
        await asyncio.gather(*(link.connected.wait() for link in self.links.values()))
        for terminal in self.terminals.values():
            self._keep(terminal.keep())
        await asyncio.gather(*(each.listening.wait() for each in self.terminals.values()))

    async def stop(self) -> None:
        """End every terminal, then every broker."""
        await asyncio.gather(*(link.stop() for link in self.links.values()))
        await asyncio.gather(*(member.stop() for member in self.terminals.values()))
        await asyncio.gather(*(member.stop() for member in self.brokers.values()))
        await asyncio.gather(*self._tasks)
        self._release()

    async def _first_start(self, broker: BrokerMember) -> None:
        self._keep(broker.keep())
        listening = asyncio.create_task(broker.listening.wait())
        failing = asyncio.create_task(broker.failing())
        await asyncio.wait((listening, failing), return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if not failing.cancel():
            raise BrokerFailed(f"the broker of {broker.settings.server}: {failing.result()}")

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _settle(self, settings: S) -> S:
        """Bind a port without listening, so that it stays ours between two processes."""
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._reserved.append(held)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, port = settings.host, settings.port
        try:
            held.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"port {port} of {host}: {error.strerror}") from error
        return msgspec.structs.replace(settings, port=held.getsockname()[1])

    def _release(self) -> None:
        for held in self._reserved:
            held.close()


def _reachable(host: str) -> str:
    """Return where a process of this machine finds what listens on an address."""
    return _ANY.get(host, host)

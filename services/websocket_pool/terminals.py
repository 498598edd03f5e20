"""The stream terminals a replica may speak to: a link for each one that it leases."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, Self

import structlog

from mt5kit.errors import TerminalMoved
from mt5kit.state.redis import Lease
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.link import TerminalLink
from mt5kit.terminal.protocol import StreamTerminal
from mt5kit.terminal.supervisor import Peer

log = structlog.get_logger(__name__)


class Terminals(Protocol):
    """Stream terminals by id, connected while they are leased. Only `aclose` waits."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Every stream terminal there is, whoever leases it."""

    def gained(self, lease: Lease) -> None:
        """This replica may use a terminal from now on."""

    def lost(self, terminal_id: str) -> None:
        """It may not any more: what is under way there fails."""

    def get(self, terminal_id: str) -> StreamTerminal:
        """A terminal that this replica leases.

        Raises:
            TerminalMoved: It is another's, or nobody's.
        """

    def up(self, terminal_id: str) -> bool:
        """Whether it is leased here and a connection to it stands."""

    def peer(self, terminal_id: str) -> Peer | None:
        """What that connection is to; None without."""

    async def aclose(self) -> None:
        """Hang up everywhere."""


class LinkedTerminals:
    """Terminals behind links. A link begins with a lease and ends with it.

    A leased terminal has one connection, and a second one from its first poll on; a terminal that
    is not leased has none. A thread is there while a connection is being made, and ends with it:
    after the loss of the terminal in 3 s at the most, or when DNS has answered for a name being
    resolved. One that is gained again meanwhile has a new link.

    Args:
        addresses: Of every stream terminal.
        link: Makes the link to an address, not yet started.
        metrics: Which terminals are up is forgotten there when they are lost.
    """

    def __init__(
        self,
        addresses: Iterable[TerminalAddress],
        link: Callable[[TerminalAddress], TerminalLink],
        metrics: TerminalMetrics,
    ) -> None:
        self._addresses = {address.terminal_id: address for address in addresses}
        self._link = link
        self._metrics = metrics
        self._links: dict[str, TerminalLink] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @classmethod
    def of(
        cls, addresses: Iterable[TerminalAddress], guard: AddressGuard, metrics: TerminalMetrics
    ) -> Self:
        """Real links to addresses; connects nothing yet."""
        return cls(addresses, partial(TerminalLink, guard=guard, metrics=metrics), metrics)

    @property
    def ids(self) -> tuple[str, ...]:
        """See `Terminals.ids`."""
        return tuple(self._addresses)

    def gained(self, lease: Lease) -> None:
        """See `Terminals.gained`; needs a running event loop."""
        terminal_id = lease.terminal_id
        if terminal_id not in self._links:
            self._links[terminal_id] = link = self._link(self._addresses[terminal_id])
            link.start()

    def lost(self, terminal_id: str) -> None:
        """See `Terminals.lost`; needs a running event loop."""
        link = self._links.pop(terminal_id, None)
        if link is None:
            return
        task = asyncio.create_task(self._lay_down(link), name=f"hang-up-{terminal_id}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def get(self, terminal_id: str) -> StreamTerminal:
        """See `Terminals.get`."""
        link = self._links.get(terminal_id)
        if link is None:
            raise TerminalMoved(f"terminal {terminal_id} is not held by this replica")
        return link

    def up(self, terminal_id: str) -> bool:
        """See `Terminals.up`."""
        link = self._links.get(terminal_id)
        return link is not None and link.connected

    def peer(self, terminal_id: str) -> Peer | None:
        """See `Terminals.peer`."""
        link = self._links.get(terminal_id)
        return None if link is None else link.peer

    async def aclose(self) -> None:
        """See `Terminals.aclose`."""
        for terminal_id in list(self._links):
            self.lost(terminal_id)
        await asyncio.gather(*self._leaving)

    async def _lay_down(self, link: TerminalLink) -> None:
        try:
            await link.aclose()
        except Exception:
            log.exception("terminal_not_hung_up", terminal_id=link.terminal_id)
        if link.terminal_id not in self._links:
            # Its new owner says whether it is up.
            self._metrics.forget_terminal(link.terminal_id)

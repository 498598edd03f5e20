"""The stream terminals a replica may speak to."""

from collections.abc import Iterable, Mapping
from typing import Protocol, Self

from mt5kit.state.redis import Lease
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.link import TerminalLink
from mt5kit.terminal.protocol import StreamTerminal


class Terminals(Protocol):
    """Terminals by id, connected when they are leased."""

    @property
    def by_id(self) -> Mapping[str, StreamTerminal]:
        """Every stream terminal."""

    def gained(self, lease: Lease) -> None:
        """This replica may use a terminal from now on."""

    async def aclose(self) -> None:
        """Hang up."""


class LinkedTerminals:
    """Terminals behind links. A terminal once leased stays connected."""

    def __init__(self, links: Mapping[str, TerminalLink]) -> None:
        self._links = links
        self._started: set[str] = set()

    @classmethod
    def of(
        cls, addresses: Iterable[TerminalAddress], guard: AddressGuard, metrics: TerminalMetrics
    ) -> Self:
        """Links to addresses; connects nothing yet."""
        return cls(
            {address.terminal_id: TerminalLink(address, guard, metrics) for address in addresses}
        )

    @property
    def by_id(self) -> Mapping[str, StreamTerminal]:
        """See `Terminals.by_id`."""
        return self._links

    def gained(self, lease: Lease) -> None:
        """See `Terminals.gained`."""
        if lease.terminal_id not in self._started:
            self._started.add(lease.terminal_id)
            self._links[lease.terminal_id].start()

    async def aclose(self) -> None:
        """See `Terminals.aclose`."""
        for terminal_id in self._started:
            await self._links[terminal_id].aclose()

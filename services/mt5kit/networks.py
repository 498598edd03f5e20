"""Which addresses may be spoken to, where somebody else's DNS may answer for our names.

In a Swarm a name without a running task is forwarded to an outside DNS, and a wildcard there would
be sent what was meant for us. So a name is resolved, the address is looked at, and the connection
is made to that address and no other.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Self

import psutil

_Found = Sequence[tuple[Any, ...]]


class OutsideNetworks(OSError):
    """A name resolves, but to no address that we may speak to."""


class Networks:
    """Blocks of addresses that may be spoken to.

    Args:
        blocks: CIDR blocks, IPv4 or IPv6.

    Raises:
        ValueError: A block is malformed.
    """

    def __init__(self, blocks: Iterable[str]) -> None:
        self._blocks = tuple(ipaddress.ip_network(block) for block in blocks)

    @classmethod
    def of(cls, blocks: Sequence[str]) -> Self | None:
        """The blocks; None, which is no restriction, where there are none."""
        return cls(blocks) if blocks else None

    def permits(self, host: str) -> bool:
        """Whether a host is an address inside; a name is none, whatever it resolves to."""
        try:
            candidate = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(candidate in block for block in self._blocks)

    def resolve(self, host: str, port: int) -> str:
        """The numeric address to connect to; blocks while DNS answers.

        Raises:
            OutsideNetworks: There is none inside.
            OSError: The name does not resolve.
        """
        return self._inside(host, socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    async def resolved(self, host: str, port: int) -> str:
        """As `resolve`, without blocking."""
        loop = asyncio.get_running_loop()
        return self._inside(host, await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    def own_address(self) -> str:
        """The address of this host, or container, that others inside reach it by.

        Raises:
            ValueError: It has none.
        """
        for addresses in psutil.net_if_addrs().values():
            for each in addresses:
                # Link-local ones come with their interface behind a %.
                if self.permits(each.address):
                    return each.address
        blocks = ", ".join(map(str, self._blocks))
        raise ValueError(f"this host has no address inside {blocks}")

    def _inside(self, host: str, found: _Found) -> str:
        for *_, (numeric, *_) in found:
            if self.permits(str(numeric)):
                return str(numeric)
        raise OutsideNetworks(f"{host} resolves outside the permitted networks")

"""Where a terminal is, and whether we may speak to it there."""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from mt5kit.errors import TerminalUnavailable

# A name that does not resolve now may resolve when its task has started.
NAME_RETRY_S = 5


@dataclass(frozen=True, slots=True)
class TerminalAddress:
    """One terminal process: its name in leases and metrics, and its RPyC door."""

    terminal_id: str
    host: str
    port: int


class AddressGuard:
    """Lets through only addresses of the terminals network.

    A slot name without a task may be forwarded to an outside DNS; a wildcard there would
    otherwise receive broker passwords.

    Args:
        networks: CIDR blocks of the terminals network, IPv4 or IPv6.

    Raises:
        ValueError: A block is malformed, or there is none.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        if not self._networks:
            raise ValueError("no terminals network is configured")

    def resolve(self, address: TerminalAddress) -> str:
        """The numeric address to connect to; blocks while DNS answers.

        Raises:
            TerminalUnavailable: The name does not resolve, or resolves outside the network.
        """
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except OSError as unresolved:
            raise TerminalUnavailable(
                f"terminal {address.terminal_id} has no address yet", retry_after_s=NAME_RETRY_S
            ) from unresolved
        for *_, (numeric, *_) in found:
            if self._permits(str(numeric)):
                return str(numeric)
        raise TerminalUnavailable(
            f"terminal {address.terminal_id} resolves outside the terminals network",
            retry_after_s=NAME_RETRY_S,
        )

    def _permits(self, numeric: str) -> bool:
        candidate = ipaddress.ip_address(numeric)
        return any(candidate in network for network in self._networks)

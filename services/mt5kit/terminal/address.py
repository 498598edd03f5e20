"""Where a terminal is, and whether we may speak to it there."""

from collections.abc import Sequence
from dataclasses import dataclass

from mt5kit.errors import TerminalUnavailable
from mt5kit.networks import Networks, OutsideNetworks

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

    def __init__(self, networks: Sequence[str]) -> None:
        if not networks:
            raise ValueError("no terminals network is configured")
        self._networks = Networks(networks)

    def resolve(self, address: TerminalAddress) -> str:
        """The numeric address to connect to; blocks while DNS answers.

        Raises:
            TerminalUnavailable: The name does not resolve, or resolves outside the network.
        """
        try:
            return self._networks.resolve(address.host, address.port)
        except OutsideNetworks as outside:
            raise TerminalUnavailable(
                f"terminal {address.terminal_id} resolves outside the terminals network",
                retry_after_s=NAME_RETRY_S,
            ) from outside
        except OSError as unresolved:
            raise TerminalUnavailable(
                f"terminal {address.terminal_id} has no address yet", retry_after_s=NAME_RETRY_S
            ) from unresolved

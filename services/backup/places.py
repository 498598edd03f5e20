"""Where a service is, while somebody else's DNS may answer for its name.

In a Swarm a name without a running task is forwarded to an outside DNS. Postgres has to prove that
it knows us before we say anything; Redis is told the password at once, so it is looked up here.
"""

import ipaddress
import socket

from backup.commands import CommandFailed
from backup.settings import Network


def address_of(host: str, port: int, networks: tuple[Network, ...]) -> str:
    """An address to connect to; the name itself where no networks are given.

    Raises:
        CommandFailed: The name has none, or none that is inside.
    """
    if not networks:
        return host
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CommandFailed(f"{host}: {error.strerror}") from None
    addresses = [str(one[4][0]) for one in found]
    for address in addresses:
        if any(ipaddress.ip_address(address) in network for network in networks):
            return address
    raise CommandFailed(f"{host} leads to {addresses[0]}, outside the services' networks")

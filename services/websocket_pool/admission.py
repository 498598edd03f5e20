"""How many sockets there may be."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.close_codes import CloseCode

_HOST_BITS: Final = 64
"""Of an IPv6 address: whoever has one has all that share the rest."""


class Refused(Exception):
    """A socket that is closed before it sees anything.

    Args:
        code: The close code.
        reason: A sentence for a person.
        retry_after_s: Seconds after which it may be worth another try, if that is known.
    """

    def __init__(self, code: CloseCode, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.retry_after_s = retry_after_s


class Admission:
    """Counts the sockets of this replica, in all and by address.

    Args:
        most: Sockets this replica serves.
        most_per_address: Of them, how many may come from one IPv4 address or IPv6 /64.
        metrics: Shows the count.
    """

    def __init__(self, most: int, most_per_address: int, metrics: StreamMetrics) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._metrics = metrics
        self._count = 0
        self._by_address: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """Open sockets."""
        return self._count

    @contextmanager
    def socket(self, address: str = "") -> Iterator[None]:
        """Room for one socket, known or unknown.

        Args:
            address: Where it comes from; without one it counts only in all.

        Raises:
            Refused: There is none.
        """
        if self._count >= self._most:
            raise Refused(CloseCode.OVERLOADED, "this replica has no room")
        with self._from(_household(address)):
            self._change(1)
            try:
                yield
            finally:
                self._change(-1)

    @contextmanager
    def _from(self, household: str) -> Iterator[None]:
        counts, most = self._by_address, self._most_per_address
        if not household:
            yield
            return
        if counts[household] >= most:
            raise Refused(CloseCode.TOO_MANY, f"at most {most} connections an address")
        counts[household] += 1
        try:
            yield
        finally:
            counts[household] -= 1
            if not counts[household]:
                del counts[household]

    def _change(self, by: int) -> None:
        self._count += by
        self._metrics.connections.set(self._count)


def _household(address: str) -> str:
    """Who shares an address with it, as far as can be told; a name stands for itself."""
    try:
        parsed: IPv4Address | IPv6Address | None = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is None:
            return f"{int(parsed) >> _HOST_BITS:x}/64"
        parsed = parsed.ipv4_mapped
    return str(parsed)

"""Slows down whoever guesses passwords, per address."""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# The wait after the n-th wrong password is 2^(n-1) seconds, and at most this.
LONGEST_WAIT_S: Final = 60.0
# After this long without a try an address begins anew.
FORGET_S: Final = 15 * 60.0
# Bounds the memory an attacker with many addresses can take.
MOST_ADDRESSES: Final = 10_000
# One subscriber holds a whole IPv6 /64.
IPV6_PREFIX: Final = 64


@dataclass(slots=True)
class _Record:
    failures: int
    until: float


class SignInThrottle:
    """Counts wrong passwords of each address and says how long it has to wait.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[str, _Record] = {}

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 if it may now."""
        record = self._records.get(_source(address))
        return max(record.until - self._clock(), 0.0) if record else 0.0

    def failed(self, address: str) -> float:
        """Note a wrong password; seconds until the next try."""
        source, now = _source(address), self._clock()
        record = self._records.pop(source, None)
        known = record is not None and now - record.until < FORGET_S
        failures = record.failures + 1 if record is not None and known else 1
        wait = min(2.0 ** min(failures - 1, 10), LONGEST_WAIT_S)
        self._records[source] = _Record(failures, now + wait)
        if len(self._records) > MOST_ADDRESSES:
            del self._records[next(iter(self._records))]
        return wait

    def succeeded(self, address: str) -> None:
        """Forget this address's failures."""
        self._records.pop(_source(address), None)


def _source(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)

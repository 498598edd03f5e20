"""Which terminals have an address: in a Swarm, those whose container runs."""

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from mt5kit.errors import TerminalUnavailable
from mt5kit.terminal.address import AddressGuard, TerminalAddress

log = structlog.get_logger(__name__)

# A container that has just started is used within about this.
LOOK_S: Final = 2.0
# One answer that fails to come tells nothing yet.
FAILURES: Final = 3
# DNS may let each question for a name that is not there wait for seconds.
MOST_AT_ONCE: Final = 8


class Names:
    """Looks up the names of terminals again and again. Addresses are there without being looked up.

    Args:
        addresses: Of all terminals that may ever be.
        guard: Which addresses may be spoken to: a name that resolves to others is not there.
        pause_s: Between two looks at a name.
    """

    def __init__(
        self, addresses: Iterable[TerminalAddress], guard: AddressGuard, pause_s: float = LOOK_S
    ) -> None:
        self._guard = guard
        self._pause_s = pause_s
        self._hosts: dict[str, str] = {}
        self._asked: dict[str, TerminalAddress] = {}
        for address in addresses:
            self._hosts[address.terminal_id] = address.host
            if not _numeric(address.host):
                self._asked.setdefault(address.host, address)
        # Of names that were there, how often in a row they were not.
        self._failures: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._threads: ThreadPoolExecutor | None = None

    def there(self, terminal_id: str) -> bool:
        """Whether a terminal has an address that we may speak to."""
        host = self._hosts[terminal_id]
        return host not in self._asked or host in self._failures

    def start(self, changed: Callable[[], None]) -> None:
        """Begin to look; `changed` is told whenever a name comes or goes."""
        if self._asked:
            self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="mt5-names")
        self._tasks = [
            asyncio.create_task(self._keep_looking(address, changed), name=f"name-{host}")
            for host, address in self._asked.items()
        ]

    async def aclose(self) -> None:
        """End it; a question under way is left to end by itself."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _keep_looking(self, address: TerminalAddress, changed: Callable[[], None]) -> None:
        while True:
            was_there = address.host in self._failures
            try:
                await self._look(address)
            except Exception:
                log.exception("name_not_looked_up", host=address.host)
            if was_there is not (address.host in self._failures):
                changed()
            await asyncio.sleep(self._pause_s)

    async def _look(self, address: TerminalAddress) -> None:
        loop, host = asyncio.get_running_loop(), address.host
        try:
            await loop.run_in_executor(self._threads, self._guard.resolve, address)
        except TerminalUnavailable:
            failures = self._failures.get(host, FAILURES) + 1
            if failures < FAILURES:
                self._failures[host] = failures
            else:
                self._failures.pop(host, None)
        else:
            self._failures[host] = 0


def _numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

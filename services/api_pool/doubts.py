"""Servers of which nobody knows whether they exist: tried once, not by everybody at once.

MetaTrader says nothing of a server that does not exist and waits the whole timeout, during which a
terminal stands for all its accounts.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from mt5kit.errors import BrokerTimeout, LoginRefused, ServiceOverloaded

# A server that was mistyped stays so; one that is away is tried again soon enough.
SILENCE_S: Final = 60.0
# Behind one login that is not answered nobody waits for a second one.
PATIENCE_S: Final = 16.0
MOST_SERVERS: Final = 1000


class Doubts:
    """Which broker servers have answered a login of this replica, and which have not.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answering: OrderedDict[str, None] = OrderedDict()
        self._silent_until: OrderedDict[str, float] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def trying(self, server: str) -> AsyncIterator[None]:
        """Around a login at `server`; alone, unless the server is known to answer.

        Raises:
            BrokerTimeout: It did not answer a moment ago.
            ServiceOverloaded: Others are finding out, and it takes too long.
        """
        if server in self._answering:
            async with self._told(server):
                yield
            return
        lock = self._locks.setdefault(server, asyncio.Lock())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await lock.acquire()
        except TimeoutError:
            raise ServiceOverloaded(
                "others are trying to reach this broker's server", retry_after_s=PATIENCE_S
            ) from None
        try:
            left = self._silent_until.get(server, 0.0) - self._clock()
            if left > 0:
                raise BrokerTimeout(
                    "the broker's server did not answer a moment ago; is its name right?",
                    details={"server": server},
                    retry_after_s=round(left, 1),
                )
            async with self._told(server):
                yield
        finally:
            lock.release()

    @asynccontextmanager
    async def _told(self, server: str) -> AsyncIterator[None]:
        try:
            yield
        except BrokerTimeout:
            self._answering.pop(server, None)
            self._silent_until[server] = self._clock() + SILENCE_S
            _bound(self._silent_until)
            raise
        except LoginRefused:
            self._answers(server)
            raise
        self._answers(server)

    def _answers(self, server: str) -> None:
        self._silent_until.pop(server, None)
        self._answering[server] = None
        _bound(self._answering)


def _bound(servers: "OrderedDict[str, None] | OrderedDict[str, float]") -> None:
    if len(servers) > MOST_SERVERS:
        servers.popitem(last=False)

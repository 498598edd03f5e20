"""Every account that is streamed here: one source each, however many sockets."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from mt5kit.errors import ServiceOverloaded
from mt5kit.state.redis import Control, ControlChannel
from websocket_pool.close_codes import CloseCode
from websocket_pool.local_source import LocalSource, LocalSources

_ATTEMPTS: Final = 3
"""A source may end between its opening and its use; more often in a row means overload."""

log = structlog.get_logger(__name__)


class Hub:
    """Opens a source for the first who asks and shares it with the rest."""

    def __init__(self, opener: LocalSources) -> None:
        self._opener = opener
        self._sources: dict[str, asyncio.Task[LocalSource]] = {}
        self._orders: dict[str, list[Callable[[LocalSource], None]]] = {}
        self._forgetting: set[asyncio.Task[None]] = set()
        self._draining = False

    async def source(self, account_id: str) -> LocalSource:
        """The running source of an account.

        Raises:
            AccountNotFound: There is no such account.
            StreamOver: Its owner has disconnected it.
            Unavailable: It cannot be streamed here now.
        """
        for _ in range(_ATTEMPTS):
            if self._draining:
                break
            source = await asyncio.shield(self._opening(account_id))
            if source.ending is None:
                return source
        raise ServiceOverloaded("this replica is stopping", retry_after_s=1)

    def lost(self, terminal_id: str) -> None:
        """End the stream of a terminal whose lease is gone."""
        for source in self._running():
            if source.terminal_id == terminal_id:
                source.stop(CloseCode.RESTART, "another replica takes over")

    async def obey(self, channel: ControlChannel) -> None:
        """Carry out the API pool's orders until cancelled; what was missed is read in the store."""
        async for account_id, control in channel.listen(self._reread_all):
            self._control(account_id, control)

    async def aclose(self) -> None:
        """End every stream and give its terminal back."""
        self._draining = True
        opening = list(self._sources.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        running = self._running()
        for source in running:
            source.stop(CloseCode.RESTART, "this replica restarts")
        ends = (source.closed() for source in running)
        for outcome in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("stream_not_closed", exc_info=outcome)

    def _opening(self, account_id: str) -> asyncio.Task[LocalSource]:
        known = self._sources.get(account_id)
        if known is None or (known.done() and known.result().ending is not None):
            known = asyncio.create_task(self._open(account_id, known))
            known.add_done_callback(lambda task: self._opened(account_id, task))
            self._sources[account_id] = known
        return known

    async def _open(
        self, account_id: str, previous: asyncio.Task[LocalSource] | None
    ) -> LocalSource:
        try:
            if previous is not None:
                await previous.result().closed()
            source = await self._opener.open(account_id)
            for order in self._orders.get(account_id, ()):
                order(source)
        finally:
            self._orders.pop(account_id, None)
        return source

    def _opened(self, account_id: str, task: asyncio.Task[LocalSource]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._sources.pop(account_id, None)
        else:
            forget = asyncio.create_task(self._forget(account_id, task))
            self._forgetting.add(forget)
            forget.add_done_callback(self._forgetting.discard)

    async def _forget(self, account_id: str, task: asyncio.Task[LocalSource]) -> None:
        await task.result().closed()
        if self._sources.get(account_id) is task:
            del self._sources[account_id]

    def _control(self, account_id: str, control: Control) -> None:
        log.info("stream_control", account_id=account_id, control=control.value)
        if control in {Control.DISCONNECT, Control.DELETED}:
            self._tell(account_id, LocalSource.disconnect)
        else:
            self._opener.credentials_changed(account_id)
            self._tell(account_id, LocalSource.reread)

    def _reread_all(self) -> None:
        for account_id in self._sources:
            self._tell(account_id, LocalSource.reread)

    def _tell(self, account_id: str, order: Callable[[LocalSource], None]) -> None:
        """Give an order to an account's source; one that is opening gets it before it begins."""
        task = self._sources.get(account_id)
        if task is None:
            return
        if not task.done():
            self._orders.setdefault(account_id, []).append(order)
        elif _is_open(task):
            order(task.result())

    def _running(self) -> list[LocalSource]:
        return [task.result() for task in self._sources.values() if _is_open(task)]


def _is_open(task: asyncio.Task[LocalSource]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None

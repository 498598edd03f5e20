"""Connections to a Redis whose name somebody else's DNS may answer for."""

import asyncio
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Connection

from mt5kit.networks import Networks


class GuardedConnection(Connection):
    """Looks its host up anew each time, and connects to an address inside the networks only.

    Args:
        networks: That may be spoken to.
        options: Of redis-py.
    """

    def __init__(self, *, networks: Networks, **options: Any) -> None:  # noqa: ANN401 - redis-py's
        super().__init__(**options)
        self._networks = networks
        self._address = ""

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            self._address = await self._networks.resolved(self.host, self.port)
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py's

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "host": self._address}

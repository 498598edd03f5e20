"""Whether Redis answers, for readiness."""

from mt5kit.state.redis.connection import RedisStore


class RedisProbe(RedisStore):
    """Asks Redis for an answer."""

    __slots__ = ()

    async def ping(self) -> None:
        """Wait for one answer.

        Raises:
            StateUnavailable: None came.
        """
        await self._command("PING")

"""When a streamed account was last looked at, for whoever reads its row."""

from typing import Protocol

import structlog

from mt5kit.errors import AccountNotFound

log = structlog.get_logger(__name__)

MARK_S = 60.0
"""A stream looks many times a second; its row says to the minute that it does."""


class PollStore(Protocol):
    """What the marks need of `WorkerStore`."""

    async def touch_poll(self, account_id: str) -> None:
        """Record that the account has been looked at now."""


class PollMarks:
    """Remembers which accounts were looked at, and writes it once a minute.

    Call `looked` after every good look, and `flush` every `MARK_S` seconds.
    """

    def __init__(self, store: PollStore) -> None:
        self._store = store
        self._looked: set[str] = set()

    def looked(self, account_id: str) -> None:
        """Note a good look. Waits for nothing."""
        self._looked.add(account_id)

    async def flush(self) -> None:
        """Write `accounts.last_poll` of those looked at since the last time.

        Raises:
            DatabaseUnavailable: Postgres is away; the rest is written next time.
        """
        for account_id in list(self._looked):
            try:
                await self._store.touch_poll(account_id)
            except AccountNotFound:
                log.info("looked_at_erased_account", account_id=account_id)
            self._looked.discard(account_id)

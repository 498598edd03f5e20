"""Everything the page knows of one account: its stream, and REST where the stream is silent."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

import msgspec

from console.account_model import AccountModel
from console.api_client import AccountDetail, ApiClient, ApiFailure, Problem, Reading
from console.stream_client import Link, Phase, StreamClient

# Without a stream, REST is asked this often; the figures are then as old as their `as_of` says.
POLL_S: Final = 5.0
# With one, only the terminal's name and the account's record can change.
POLL_LIVE_S: Final = 30.0


class Known(msgspec.Struct, frozen=True):
    """What is known of an account at one moment.

    Args:
        model: Of the stream.
        link: How the stream does.
        detail: The account's record; None until it has been read.
        reading: The last REST snapshot; None until it has been read.
        problem: Why the last REST request failed, if it did.
        heard_s: Seconds since the stream last said anything; None if it never did.
    """

    model: AccountModel
    link: Link
    detail: AccountDetail | None = None
    reading: Reading | None = None
    problem: Problem | None = None
    heard_s: float | None = None

    def same_as(self, other: "Known") -> bool:
        """Whether nothing but time has passed between the two."""
        mine = (self.model, self.link, self.detail, self.reading, self.problem)
        theirs = (other.model, other.link, other.detail, other.reading, other.problem)
        # By identity: comparing hundreds of positions would cost what painting them does.
        return all(one is another for one, another in zip(mine, theirs, strict=True))


class AccountWatch:
    """Watches one account from `start` to `aclose`.

    Args:
        api: Asks REST.
        user_id: The account's user.
        account_id: The account.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        api: ApiClient,
        user_id: UUID,
        account_id: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.account_id = account_id
        self._api = api
        self._user_id = user_id
        self._clock = clock
        self._stream = StreamClient(lambda: api.assign(user_id, account_id), clock=clock)
        self._detail: AccountDetail | None = None
        self._reading: Reading | None = None
        self._problem: Problem | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def known(self) -> Known:
        """What is known now."""
        heard = self._stream.heard_at
        return Known(
            self._stream.model,
            self._stream.link,
            self._detail,
            self._reading,
            self._problem,
            None if heard is None else self._clock() - heard,
        )

    def start(self) -> None:
        """Begin to follow the stream and to ask REST."""
        self._tasks = [
            asyncio.create_task(self._stream.run(), name=f"stream {self.account_id}"),
            asyncio.create_task(self._poll(), name=f"poll {self.account_id}"),
        ]

    async def aclose(self) -> None:
        """Stop, and close the socket."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _poll(self) -> None:
        while True:
            self._stream.turned.clear()
            wait = await self._ask()
            # A stream that has come or gone makes the next question due at once.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stream.turned.wait()

    async def _ask(self) -> float:
        try:
            self._detail = await self._api.account(self._user_id, self.account_id)
            self._reading = await self._api.reading(self._user_id, self.account_id)
        except ApiFailure as refused:
            self._problem = refused.problem
            return max(POLL_S, refused.retry_after_s or 0.0)
        self._problem = None
        return POLL_LIVE_S if self._stream.link.phase is Phase.LIVE else POLL_S

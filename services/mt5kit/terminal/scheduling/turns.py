"""Turns that wait for a terminal."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import Mt5SwarmError
from mt5kit.terminal.chunks import Chunk
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.scheduling.parts import Entrant, Turn

T = TypeVar("T")

Key: TypeAlias = tuple[str, AccountIdentity]
"""An account under one identity: new credentials may change whose answers are its own."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A look, the token it was taken under, and its call; `logged_in`: the call was a login."""

    snapshot: Snapshot
    token: int
    began: float
    ended: float
    logged_in: bool


@dataclass(eq=False, slots=True, kw_only=True)
class Waiter(Generic[T]):
    """Somebody who waits; times are seconds of the scheduler's clock.

    `begun` is when the terminal was first asked for it, None before.
    """

    asked: float
    deadline: float
    answer: "asyncio.Future[Turn[T]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    begun: float | None = None

    def resolve(self, value: T, token: int, began: float, ended: float) -> None:
        """Answer, unless nobody waits any more."""
        if not self.answer.done():
            waited = max(began - self.asked, 0.0)
            self.answer.set_result(Turn(value, token, waited * 1000, (ended - began) * 1000))

    def fail(self, error: Exception) -> None:
        """Fail, unless nobody waits any more."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False, slots=True, kw_only=True)
class LookTurn(Waiter[Snapshot]):
    """Wants a look not older than `max_age_s` when it was asked for."""

    entrant: Entrant
    max_age_s: float

    @property
    def key(self) -> Key:
        """Whose look."""
        return self.entrant.account_id, self.entrant.identity

    def satisfied_by(self, began: float) -> bool:
        """Whether a call that began then is young enough."""
        return began >= self.asked - self.max_age_s


@dataclass(eq=False, slots=True, kw_only=True)
class ProofTurn(Waiter[Snapshot]):
    """Wants credentials tried; `deadline` bounds its waiting, `login_deadline_s` its login."""

    credentials: Credentials
    login_deadline_s: float
    not_before: float = -math.inf


@dataclass(eq=False, slots=True, kw_only=True)
class JobTurn(Waiter[T]):
    """Wants steps taken while its account is in.

    `since` is when it was asked for or last got a step, whichever is later.
    """

    entrant: Entrant
    step: Callable[[int], Awaitable[Chunk[T]]]
    since: float
    next_at: float = -math.inf
    rests_until: float = -math.inf
    spent_s: float = 0.0
    lost_account: bool = False

    @property
    def key(self) -> Key:
        """Whose work."""
        return self.entrant.account_id, self.entrant.identity

    def done(self, value: T, token: int) -> None:
        """Answer with the result and the time its steps took."""
        began = self.asked if self.begun is None else self.begun
        self.resolve(value, token, began, began + self.spent_s)


AnyJob: TypeAlias = JobTurn[Any]
AnyTurn: TypeAlias = LookTurn | ProofTurn | AnyJob


def copy_of(error: Mt5SwarmError) -> Mt5SwarmError:
    """The same failure for another waiter: an exception gathers the traceback of each raise."""
    return type(error)(error.message, details=error.details, retry_after_s=error.retry_after_s)

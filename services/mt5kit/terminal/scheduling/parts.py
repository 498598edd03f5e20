"""What a scheduler of one terminal is given, and what its turns give back."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import LoginRefused, Mt5SwarmError
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.protocol import LOGIN_DEADLINE_S
from mt5kit.terminal.scheduling.refusals import RefusalMemory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entrant:
    """An account that wants a turn.

    `credentials` is awaited when a login needs them, and not before; what it raises fails the
    turns of this account.
    """

    account_id: str
    identity: AccountIdentity
    credentials: Callable[[], Awaitable[Credentials]]


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """What a turn gave, under which fencing token, and the milliseconds it waited and took."""

    value: T
    token: int
    queue_wait_ms: float
    broker_ms: float


class LoginBudget(Protocol):
    """How many logins a broker server is troubled with."""

    async def take(self, server: str, *, spare: bool) -> float:
        """0.0 when a login is granted, else the seconds until asking again makes sense.

        Args:
            server: The broker server.
            spare: Nobody waits for this login: leave a reserve for those who do.
        """


class RefreshSource(Protocol):
    """Which accounts of this terminal are read, and how to log them in."""

    def demand(self) -> Mapping[str, float]:
        """Reads per second by account, of those placed here and read in the last minutes."""

    async def entrant(self, account_id: str) -> Entrant | None:
        """The account, or None when it is not to be refreshed.

        Raises:
            Mt5SwarmError: Not known at this moment; it is asked for again some seconds later.
        """


class SchedulerEvents(Protocol):
    """Told what happened, in the event loop, before the turn is answered; must return at once."""

    def looked(self, account_id: str, token: int, snapshot: Snapshot) -> None:
        """A look was taken, whoever asked for it; proofs excepted."""

    def refused(self, account_id: str, error: LoginRefused) -> None:
        """The broker refused the stored credentials of an account."""

    def changed(self, up: bool, why: Mt5SwarmError | None) -> None:
        """The terminal stopped answering, and why; or answers again."""


@dataclass(frozen=True, slots=True)
class SchedulerParts:
    """What a scheduler works with; `refusals` may be shared by the schedulers of a process."""

    metrics: TerminalMetrics
    budget: LoginBudget
    source: RefreshSource
    events: SchedulerEvents
    refusals: RefusalMemory


@dataclass(frozen=True, slots=True)
class SchedulerRules:
    """Bounds of a scheduler; durations in seconds."""

    # Turns of milliseconds clear this many within a deadline; turns of seconds do not clear ten.
    most_waiting: int = 200
    # Less than a login: an account that is read without pause delays the others by a fraction
    # of what the switch itself costs them.
    patience_s: float = 1.0
    # A thirtieth of a switch and back is risked for sparing both.
    linger_s: float = 0.1
    # An account is not logged in for a refresh more often, and where it is read seldom, less.
    min_period_s: float = 5.0
    # While it is in, looking costs milliseconds.
    dwell_look_s: float = 0.25
    # A job goes behind looks for this long, then has a visit to itself, and gives way to
    # refreshes after the same time.
    job_patience_s: float = 5.0
    # Who reads history page by page asks for the next one well within this: a refresh can wait.
    job_linger_s: float = 0.25
    probe_every_s: float = 2.0
    probe_deadline_s: float = 2.0
    # A read takes milliseconds; beyond this the terminal is frozen, which must show in seconds.
    read_deadline_s: float = 2.0
    login_deadline_s: float = LOGIN_DEADLINE_S
    # How long a proof may wait for its login to begin; the login has its own deadline.
    proof_patience_s: float = 10.0
    # Credentials, entrants and budgets come from stores near by; the terminal waits meanwhile.
    fetch_deadline_s: float = 2.0


DEFAULT_RULES = SchedulerRules()

"""Whether a terminal answers, and when to ask again."""

from collections.abc import Callable
from typing import Final

from mt5kit.backoff import Backoff
from mt5kit.errors import (
    CallFailed,
    Mt5SwarmError,
    PollSuperseded,
    StaleToken,
    TerminalTimeout,
    TerminalUnavailable,
    WrongAccount,
)

# One broken connection is remade by the next call; two in a row mean that the terminal is away.
AWAYS_TO_OPEN: Final = 2
FIRST_PROBE_S: Final = 0.5
LAST_PROBE_S: Final = 5.0
# The least that callers are told to wait.
LEAST_RETRY_S: Final = 0.1


class Breaker:
    """Opens when a terminal does not answer, and closes when a real call is answered.

    A refusal is an answer. Times are seconds of the caller's monotonic clock.

    Args:
        on_change: Told whether the terminal is up, and why it is not.
        backoff: Between the probes while it is open.
    """

    def __init__(
        self,
        on_change: Callable[[bool, Mt5SwarmError | None], None],
        backoff: Backoff | None = None,
    ) -> None:
        self._on_change = on_change
        self._backoff = backoff or Backoff(first_s=FIRST_PROBE_S, cap_s=LAST_PROBE_S)
        self._aways = 0
        self._open = False
        self._probe_at = 0.0

    @property
    def open(self) -> bool:
        """Whether turns must be refused."""
        return self._open

    @property
    def probe_at(self) -> float:
        """When the next probe is due while it is open."""
        return self._probe_at

    def retry_after_s(self, now: float) -> float:
        """Seconds until the terminal may answer again."""
        return max(self._probe_at - now, LEAST_RETRY_S)

    def answered(self) -> None:
        """The terminal answered a call."""
        self._aways = 0
        if self._open:
            self._open = False
            self._backoff.reset()
            self._on_change(True, None)

    def failed(self, error: Mt5SwarmError, now: float) -> None:
        """A call ended in `error` at `now`."""
        if is_answer(error):
            self.answered()
            return
        self._aways += 1
        if self._open:
            self._probe_at = now + self._backoff.next_s()
        elif isinstance(error, TerminalTimeout) or self._aways >= AWAYS_TO_OPEN:
            self._open = True
            self._probe_at = now + self._backoff.next_s()
            self._on_change(False, error)


def is_answer(error: Mt5SwarmError) -> bool:
    """Whether the terminal itself said no, as opposed to nothing."""
    if isinstance(error, (StaleToken, WrongAccount, CallFailed, PollSuperseded)):
        return True
    return not isinstance(error, TerminalUnavailable)

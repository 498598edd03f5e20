"""What became of a call to a terminal, in one word: a label of metrics."""

from typing import Final

from mt5kit.errors import (
    BrokerTimeout,
    LoginRefused,
    Mt5SwarmError,
    PollSuperseded,
    StaleToken,
    TerminalTimeout,
    TerminalUnavailable,
    WrongAccount,
)
from mt5kit.terminal.answers import TooManyRows

_OUTCOMES: Final[tuple[tuple[type[Mt5SwarmError], str], ...]] = (
    (LoginRefused, "refused"),
    (BrokerTimeout, "broker_timeout"),
    (TerminalTimeout, "timeout"),
    (WrongAccount, "wrong_account"),
    (TooManyRows, "too_many"),
    (StaleToken, "stale_token"),
    (PollSuperseded, "superseded"),
    (TerminalUnavailable, "unavailable"),
)


def outcome_of(failure: Mt5SwarmError) -> str:
    """The metric label of a failed call: one word of a closed set."""
    for kind, word in _OUTCOMES:
        if isinstance(failure, kind):
            return word
    return "error"

"""What comes back from the agent: typed values, or the exception it stands for."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import (
    BrokerTimeout,
    CallFailed,
    LoginRefused,
    Mt5SwarmError,
    PollSuperseded,
    StaleToken,
    TerminalUnavailable,
    WrongAccount,
)

T = TypeVar("T")

# last_error() codes of the MetaTrader5 module that mean something of their own.
AUTH_FAILED = -6
IPC_TIMEOUT = -10005


class AgentError(msgspec.Struct, frozen=True):
    """A refusal: its kind, a sentence, and MetaTrader's code (0 when it is not MetaTrader's).

    The code of `too_many` is how many.
    """

    kind: str
    text: str
    code: int


class Answer(msgspec.Struct, frozen=True):
    """The agent's envelope: exactly one of the two."""

    answer: msgspec.Raw = msgspec.Raw()
    error: AgentError | None = None


class TooManyRows(CallFailed):
    """A period of history holds more rows than were allowed.

    Attributes:
        rows: How many it holds.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(f"the period holds {rows} rows of history")
        self.rows = rows


class Look(msgspec.Struct, frozen=True):
    """One answer of the long poll; `version` goes back as `since`."""

    version: str
    snapshot: Snapshot


class SignedIn(msgspec.Struct, frozen=True):
    """A look at the account that is in; `logged_in` says that it was not in before."""

    logged_in: bool
    snapshot: Snapshot


class WhoIsIn(msgspec.Struct, frozen=True):
    """The account that is logged in; None when nobody is."""

    identity: AccountIdentity | None


class PollOpened(msgspec.Struct, frozen=True):
    """The generation under which a poll runs."""

    generation: int


def unpack(reply: object) -> msgspec.Raw:
    """The payload of a reply.

    Raises:
        Mt5SwarmError: The agent refused; which subclass, `refusal_of` says.
        TerminalUnavailable: The reply is no value of ours.
    """
    # A netref would make every later use of it a call into the terminal.
    if type(reply) is not bytes:
        raise TerminalUnavailable("the terminal answered with something that is no answer")
    try:
        envelope = msgspec.json.decode(reply, type=Answer)
    except msgspec.DecodeError as garbled:
        raise TerminalUnavailable("the terminal's answer is garbled", retry_after_s=1) from garbled
    if envelope.error is not None:
        raise refusal_of(envelope.error)
    return envelope.answer


def decode(payload: msgspec.Raw, kind: type[T]) -> T:
    """A payload as a typed value.

    Raises:
        TerminalUnavailable: It has another shape; the terminal runs something we do not know.
    """
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.DecodeError as garbled:
        raise TerminalUnavailable(f"the terminal's answer is garbled: {garbled}") from garbled


def refusal_of(error: AgentError) -> Mt5SwarmError:
    """The exception that an agent's error stands for."""
    make = _REFUSALS.get(error.kind, _failed)
    return make(error)


def _login_refused(error: AgentError) -> Mt5SwarmError:
    if error.code == AUTH_FAILED:
        return LoginRefused("the broker refused these credentials", details=_facts(error))
    if error.code == IPC_TIMEOUT:
        return BrokerTimeout(
            "the broker's server did not answer in time", details=_facts(error), retry_after_s=30
        )
    return _failed(error)


def _failed(error: AgentError) -> Mt5SwarmError:
    return CallFailed(
        f"the terminal could not answer: {error.text} ({error.code})", details=_facts(error)
    )


def _facts(error: AgentError) -> dict[str, object]:
    return {"mt5_code": error.code, "mt5_text": error.text}


def _kind(raised: type[Mt5SwarmError]) -> Callable[[AgentError], Mt5SwarmError]:
    return lambda error: raised(error.text)


_REFUSALS: dict[str, Callable[[AgentError], Mt5SwarmError]] = {
    "login_refused": _login_refused,
    "stale_token": _kind(StaleToken),
    "superseded": _kind(PollSuperseded),
    "wrong_account": _kind(WrongAccount),
    "not_logged_in": _kind(WrongAccount),
    "busy": _kind(TerminalUnavailable),
    "too_many": lambda error: TooManyRows(error.code),
    "failed": _failed,
    "fault": _failed,
}

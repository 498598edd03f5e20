"""Every exception that crosses a room, with the code and status a caller sees.

```
Mt5SwarmError
├── CallerError                the caller can mend it; never an alert
│   ├── Unauthenticated        UNAUTHENTICATED       401
│   ├── Forbidden              FORBIDDEN             403
│   ├── LoginRefused           MT5_LOGIN_FAILED      403
│   ├── AccountNotFound        ACCOUNT_NOT_FOUND     404
│   ├── NotFound               NOT_FOUND             404
│   ├── MethodNotAllowed       METHOD_NOT_ALLOWED    405
│   ├── Conflict               CONFLICT              409
│   ├── PayloadTooLarge        PAYLOAD_TOO_LARGE     413
│   ├── InvalidParameters      INVALID_PARAMETERS    422
│   ├── BrokerUnknown          BROKER_UNKNOWN        422
│   └── RateLimited            RATE_LIMITED          429
├── Unavailable                true for the moment; the caller waits and asks again
│   ├── TerminalUnavailable    TERMINAL_UNAVAILABLE  503
│   │   ├── TerminalTimeout    no answer in time: the outcome is unknown
│   │   ├── WrongAccount       the terminal refused: another account is logged in
│   │   ├── StaleToken         the terminal refused: a newer owner has been there
│   │   ├── TerminalMoved      nothing was begun: another replica holds the terminal, or will
│   │   │   └── TerminalHandedOver   as soon as the call in progress has ended
│   │   ├── PollSuperseded     the terminal refused: a newer poll has begun
│   │   └── CallFailed         the MetaTrader5 module answered None
│   ├── ServiceOverloaded      SERVICE_OVERLOADED    503
│   └── BrokerTimeout          BROKER_TIMEOUT        504
└── InternalFault              INTERNAL              500; ours, and an alert
    └── VaultFault             KeyMissing, SealBroken, KeyRingInvalid (in `vault`)
```
"""

from collections.abc import Mapping
from typing import ClassVar


class Mt5SwarmError(Exception):
    """Root of everything we raise on purpose.

    Args:
        message: A sentence for a person; it leaves the system as `error`.
        details: JSON-ready facts for a program; they leave the system as `details`.
        retry_after_s: Seconds after which asking again makes sense, if it ever does.
    """

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500
    # When nothing better is known; None where asking again changes nothing.
    default_retry_after_s: ClassVar[float | None] = None

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, object] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, object] = dict(details or {})
        self.retry_after_s = self.default_retry_after_s if retry_after_s is None else retry_after_s


class CallerError(Mt5SwarmError):
    """The caller asked for something that cannot be; asking again changes nothing."""

    code = "INVALID_PARAMETERS"
    status = 422


class Unauthenticated(CallerError):
    """No valid key or ticket came with the request."""

    code = "UNAUTHENTICATED"
    status = 401


class Forbidden(CallerError):
    """The key is known but does not open this door."""

    code = "FORBIDDEN"
    status = 403


class LoginRefused(CallerError):
    """The broker refused the credentials; `details` carries the terminal's code and text."""

    code = "MT5_LOGIN_FAILED"
    status = 403


class AccountNotFound(CallerError):
    """No such account for this user; says nothing about other users' accounts."""

    code = "ACCOUNT_NOT_FOUND"
    status = 404


class NotFound(CallerError):
    """No such route or thing."""

    code = "NOT_FOUND"
    status = 404


class MethodNotAllowed(CallerError):
    """The route exists, the method does not."""

    code = "METHOD_NOT_ALLOWED"
    status = 405


class Conflict(CallerError):
    """The request contradicts what already stands."""

    code = "CONFLICT"
    status = 409


class PayloadTooLarge(CallerError):
    """The body is larger than any honest request."""

    code = "PAYLOAD_TOO_LARGE"
    status = 413


class InvalidParameters(CallerError):
    """A parameter is missing, malformed or out of range; `details` names it."""


class BrokerUnknown(CallerError):
    """No broker server of that name is known."""

    code = "BROKER_UNKNOWN"


class RateLimited(CallerError):
    """The caller asked too often."""

    code = "RATE_LIMITED"
    status = 429


class Unavailable(Mt5SwarmError):
    """Not now; `retry_after_s` says when to ask again."""

    code = "SERVICE_OVERLOADED"
    status = 503
    default_retry_after_s = 1.0


class TerminalUnavailable(Unavailable):
    """The terminal cannot answer now: away, restarting, or not this replica's."""

    code = "TERMINAL_UNAVAILABLE"


class TerminalTimeout(TerminalUnavailable):
    """The deadline passed before the terminal answered; whether the call ran is unknown."""


class WrongAccount(TerminalUnavailable):
    """The terminal holds another account, or none, and gave no data."""


class StaleToken(TerminalUnavailable):
    """A newer owner has fenced this one off; the lease is lost."""


class TerminalMoved(TerminalUnavailable):
    """The terminal is another replica's, or about to be; the turn was not begun."""


class TerminalHandedOver(TerminalMoved):
    """Its owner gives the terminal away, which takes no longer than its call in progress."""


class PollSuperseded(TerminalUnavailable):
    """A newer long poll has begun; this one has ended."""


class CallFailed(TerminalUnavailable):
    """The module answered None; `details` carries the code and text of its `last_error()`."""


class ServiceOverloaded(Unavailable):
    """No capacity is left for this now."""


class BrokerTimeout(Unavailable):
    """The terminal is well, the broker did not answer it in time."""

    code = "BROKER_TIMEOUT"
    status = 504


class InternalFault(Mt5SwarmError):
    """Ours to mend; the caller learns only the request id."""


class VaultFault(InternalFault):
    """A stored secret could not be sealed or opened."""

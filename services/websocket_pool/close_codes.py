"""Why a socket was closed: what a client acts on and what the metric is labelled with."""

from enum import IntEnum


class CloseCode(IntEnum):
    """Codes of ours and the ones we see most."""

    NORMAL = 1000
    """The client said goodbye."""
    GOING_AWAY = 1001
    """The browser left the page."""
    NO_STATUS = 1005
    """The client closed without saying why, or its connection broke."""
    ABNORMAL = 1006
    """The connection ended before it was one."""
    TOO_LARGE = 1009
    """The client sent more than 4 KiB in one message."""
    INTERNAL = 1011
    """A fault of ours."""
    RESTART = 1012
    """This replica stops serving the account: reconnect after a random moment."""
    OVERLOADED = 1013
    """No terminal, no room, or no Redis just now: reconnect later."""
    BAD_CLIENT = 4400
    """Too many messages we do not understand."""
    UNAUTHENTICATED = 4401
    """No good ticket in time, or the connection's hour is over."""
    ORIGIN_REFUSED = 4403
    """A page that is not on the list opened this."""
    NOT_FOUND = 4404
    """No such account for this user."""
    SLOW = 4408
    """The client took nothing for 30 s, or answered no ping; it gets no close frame but is cut."""
    ENDED = 4409
    """The owner of the account disconnected or deleted it."""
    TOO_MANY = 4429
    """This user, or this address, has too many connections."""


def label_of(code: int) -> str:
    """The metric label: a code of the catalogue, else `other`; clients may send any."""
    return str(code) if code in CloseCode.__members__.values() else "other"

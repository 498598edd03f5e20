"""When the history of an account that has just been logged in may be believed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistorySize

# A terminal loads history in the background after a login and meanwhile answers with nothing, or
# with a part, and no error. What it says this long after the login is believed.
SETTLE_S: Final = 6.0
# Between two looks: short at first, because most histories are there at once, and never so many
# that looking is what the terminal does.
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Visit:
    """One login: of whom, since when, what was seen last, how long to wait, whether believed."""

    account: AccountIdentity
    since: float
    seen: HistorySize | None = None
    pause_s: float = FIRST_PAUSE_S
    settled: bool = False


class Settling:
    """Whether a terminal has loaded the history of the account that is in; one for a terminal.

    It has when two answers in a row are equal and not empty. An empty history is believed of an
    account without any money, because every other one was paid into by a deal. Whatever a
    terminal says `SETTLE_S` after the login is believed.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._visit: _Visit | None = None

    def logged_in(self, account: AccountIdentity) -> None:
        """Begin again: a login of this account was made just now, or may have been."""
        self._visit = _Visit(account, self._clock())

    def settled(self, account: AccountIdentity) -> bool:
        """Whether the history of this account, as it is in the terminal now, is believed."""
        visit = self._visit
        return visit is not None and visit.account == account and visit.settled

    def saw(self, account: AccountIdentity, size: HistorySize) -> float:
        """Take in an answer; seconds until the next should be asked for, 0 once it is settled.

        An account whose login nobody told of counts as logged in at the first answer.
        """
        visit = self._visit
        if visit is None or visit.account != account:
            visit = _Visit(account, self._clock())
        whole = size == visit.seen and (size.deals > 0 or not size.funded)
        settled = visit.settled or whole or self._clock() - visit.since >= SETTLE_S
        later_s = min(visit.pause_s * 2, LONGEST_PAUSE_S)
        self._visit = _Visit(account, visit.since, size, later_s, settled)
        return 0.0 if settled else visit.pause_s

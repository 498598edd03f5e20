"""What the pools need of a terminal; `TerminalLink` is the real one, fakes stand beside it."""

from typing import Protocol

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryPage, HistoryQuery, HistorySize
from mt5kit.domain.snapshots import Snapshot
from mt5kit.domain.trades import Deal, Order
from mt5kit.terminal.answers import Look, SignedIn
from mt5kit.terminal.credentials import Credentials

# A login takes 1.5 s and more; a broker far away may need this much.
LOGIN_DEADLINE_S = 20.0
# A read takes milliseconds; beyond this somebody else holds the interpreter.
READ_DEADLINE_S = 5.0
# The longest a poll stays in the terminal without news (design §3).
POLL_TIMEOUT_S = 5.0


class AccountTerminal(Protocol):
    """Turns of one terminal.

    Every method raises StaleToken when a newer owner has fenced this one off,
    TerminalTimeout when no answer came in time, and TerminalUnavailable otherwise when the
    terminal cannot answer; reads raise WrongAccount when another account is logged in.
    """

    terminal_id: str

    async def sign_in(
        self,
        token: int,
        credentials: Credentials,
        *,
        must_prove: bool = False,
        deadline_s: float = LOGIN_DEADLINE_S,
    ) -> SignedIn:
        """Log the account in and look at it in the same turn.

        Args:
            token: Of the caller's lease.
            credentials: Of the account.
            must_prove: Log in even if the account is in already, so that the password is tried.
            deadline_s: Seconds for all of it.

        Returns:
            The look, and whether a login was made for it.

        Raises:
            LoginRefused: The broker refused the credentials.
            BrokerTimeout: The broker did not answer in time.
        """

    async def snapshot(
        self, token: int, identity: AccountIdentity, *, deadline_s: float = READ_DEADLINE_S
    ) -> Snapshot:
        """Look at the account that is logged in."""

    async def probe(
        self, token: int, *, deadline_s: float = READ_DEADLINE_S
    ) -> AccountIdentity | None:
        """Who is logged in, as the terminal itself says now; None when nobody is.

        Raises:
            CallFailed: Its Python answers, and the terminal behind it does not.
        """

    async def history_size(
        self, token: int, identity: AccountIdentity, *, deadline_s: float = READ_DEADLINE_S
    ) -> HistorySize:
        """How much history of all time the terminal has of the account, at this moment."""

    async def deals(
        self,
        token: int,
        identity: AccountIdentity,
        query: HistoryQuery,
        *,
        deadline_s: float = READ_DEADLINE_S,
    ) -> HistoryPage[Deal]:
        """One page of the account's deals.

        Raises:
            TooManyRows: The period of the query holds more than it allows.
        """

    async def orders(
        self,
        token: int,
        identity: AccountIdentity,
        query: HistoryQuery,
        *,
        deadline_s: float = READ_DEADLINE_S,
    ) -> HistoryPage[Order]:
        """One page of the account's historical orders; raises as `deals` does."""


class HistoryTerminal(Protocol):
    """What reading an account's past needs of a terminal; raises as `AccountTerminal` does."""

    async def history_size(self, token: int, identity: AccountIdentity) -> HistorySize:
        """See `AccountTerminal.history_size`."""

    async def deals(
        self, token: int, identity: AccountIdentity, query: HistoryQuery
    ) -> HistoryPage[Deal]:
        """See `AccountTerminal.deals`."""

    async def orders(
        self, token: int, identity: AccountIdentity, query: HistoryQuery
    ) -> HistoryPage[Order]:
        """See `AccountTerminal.orders`."""


class StreamTerminal(Protocol):
    """A terminal that one account is streamed from; raises as `AccountTerminal` does."""

    terminal_id: str

    async def sign_in(
        self,
        token: int,
        credentials: Credentials,
        *,
        must_prove: bool = False,
        deadline_s: float = LOGIN_DEADLINE_S,
    ) -> SignedIn:
        """See `AccountTerminal.sign_in`."""

    async def wait_changes(
        self,
        token: int,
        identity: AccountIdentity,
        since: str,
        *,
        timeout_s: float = POLL_TIMEOUT_S,
        hold_s: float = 0.0,
    ) -> Look:
        """The next look that differs from look `since`, or the same one after `timeout_s`.

        With `hold_s` the terminal rests for so long first, and the look that follows is the
        answer, whether it differs or not: for a caller who could do nothing with an earlier one.

        An empty `since` answers at once. Where looking is slow any other answer may take a second
        longer: the terminal is given time for others first.

        Raises:
            PollSuperseded: A newer poll of this terminal has begun.
        """

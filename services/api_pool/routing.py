"""Finding who takes an account's turn."""

import asyncio
import time
from typing import Final

from api_pool.fleet import Fleet
from api_pool.forwarding import Forwarder
from api_pool.local_turns import LocalTurns
from api_pool.places import Places
from api_pool.store_watch import StoreWatch
from api_pool.turns import Taken, TurnRequest
from mt5kit.errors import AccountNotFound, Conflict, TerminalHandedOver, TerminalMoved
from mt5kit.state.redis import Lease, LeaseStore, StateUnavailable

# A hand-over takes tenths of a second. After a crash the lease runs out first, and nobody should
# hold a request for so long.
PATIENCE_S: Final = 2.0
STEP_S: Final = 0.1
# Who is refused only after so long had been let in, and the terminal has moved since.
LET_IN_S: Final = 2.0
# What has been waited for at one terminal counts no more at another; so much is left at least.
MOVED_S: Final = 5.0
RETRY_AFTER_S: Final = 2.0


class TurnRouter:
    """Takes turns here where the terminal is ours, and through its owner where it is not.

    Args:
        fleet: Knows which terminals are ours.
        local: Takes turns on those.
        places: Which terminal serves an account.
        leases: Whose the others are.
        forwarder: Speaks to their owners.
        watch: Knows whether the state store is away.
    """

    def __init__(
        self,
        fleet: Fleet,
        local: LocalTurns,
        places: Places,
        leases: LeaseStore,
        forwarder: Forwarder,
        watch: StoreWatch,
    ) -> None:
        self._fleet = fleet
        self._local = local
        self._places = places
        self._leases = leases
        self._forwarder = forwarder
        self._watch = watch
        self._owners: dict[str, Lease] = {}

    async def of_account(self, account_id: str, turn: TurnRequest, deadline_s: float) -> Taken:
        """Take a turn where the account is placed.

        A terminal that changes hands is waited for, and an account that moves is followed.

        Raises:
            ServiceOverloaded: No terminal has room, or the turn would not begin in time.
            LoginRefused: The broker refused the credentials.
            Conflict: The account was disconnected meanwhile.
            AccountNotFound: It was deleted meanwhile.
            BrokerTimeout: The broker did not answer in time.
            TerminalUnavailable: The terminal has no owner, or did not answer.
        """
        patience = Patience(deadline_s)
        while True:
            terminal_id = await self._places.place(account_id)
            patience.asks(terminal_id)
            try:
                return await self.on_terminal(terminal_id, turn, patience.left_s)
            except TerminalMoved as moved:
                if patience.over(handed_over=isinstance(moved, TerminalHandedOver)):
                    raise
            except (Conflict, AccountNotFound):
                # Disconnected or deleted while this read was under way, which has placed it again.
                await self._places.give_up(account_id)
                raise
            await asyncio.sleep(STEP_S)

    async def on_terminal(self, terminal_id: str, turn: TurnRequest, deadline_s: float) -> Taken:
        """Take a turn on this terminal; raises as `Owner.take`."""
        if self._fleet.holds(terminal_id):
            return await self._local.take(terminal_id, turn, deadline_s)
        lease = await self._holder(terminal_id)
        if lease is None or not lease.url or lease.owner == self._fleet.instance_id:
            raise TerminalMoved(
                f"terminal {terminal_id} has no owner just now", retry_after_s=RETRY_AFTER_S
            )
        return await self._forwarder.take(lease.url, terminal_id, turn, deadline_s)

    async def _holder(self, terminal_id: str) -> Lease | None:
        """Who holds it; while the state store is away, who did: nobody else can have it since."""
        try:
            lease = await self._watch.asked(lambda: self._leases.holder(terminal_id))
        except StateUnavailable:
            return self._owners.get(terminal_id)
        if lease is not None:
            self._owners[terminal_id] = lease
        return lease


class Patience:
    """How long a turn is taken from one place to the next.

    Args:
        deadline_s: For the turn to begin, where it stays in one place.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._began = self._asked = time.monotonic()
        self._terminal_id = ""
        self._since: float | None = None

    @property
    def left_s(self) -> float:
        """Within which the turn has to begin where it is asked for now."""
        left_s = self._deadline_s - (self._asked - self._began)
        return max(left_s, min(self._deadline_s, MOVED_S))

    def asks(self, terminal_id: str) -> None:
        """A terminal is asked for the turn."""
        if terminal_id != self._terminal_id:
            self._terminal_id, self._since = terminal_id, None
        self._asked = time.monotonic()

    def over(self, *, handed_over: bool) -> bool:
        """It was not taken there; whether nothing more is to be tried.

        Args:
            handed_over: The terminal's owner says that another will have it soon.
        """
        now = time.monotonic()
        if self._since is None or now - self._asked > LET_IN_S:
            self._since = now
        patience_s = self._deadline_s if handed_over else min(PATIENCE_S, self._deadline_s)
        return now > min(self._since + patience_s, self._began + self._deadline_s + PATIENCE_S)

"""Stream terminals that are about to end are left, and then laid down."""

from websocket_pool.hub import Hub
from websocket_pool.leasing import Leasing
from websocket_pool.owner import OwnerParts
from websocket_pool.terminals import Terminals


class Drainer:
    """Looks after those of our terminals that drain; whoever polls one leaves it by itself.

    Args:
        leasing: Our terminals, and which of them drain.
        terminals: Connections to them.
        hub: Who polls them.
        owner: What owners share.
    """

    def __init__(
        self,
        leasing: Leasing,
        terminals: Terminals,
        hub: Hub,
        owner: OwnerParts,
    ) -> None:
        self._leasing = leasing
        self._terminals = terminals
        self._hub = hub
        self._placement = owner.placement
        self._live = owner.live

    async def look(self) -> None:
        """Ask the supervisors, and lay down the terminals that drain and have no account.

        Raises:
            StateUnavailable: Redis is away.
        """
        departures, held = self._leasing.departures, self._leasing.keeper.held
        draining = await departures.look({one: self._terminals.peer(one) for one in held})
        polled = self._hub.polled()
        left = [one for one in draining if one in held and one not in polled]
        occupants = await self._placement.occupants(left)
        for terminal_id in left:
            if terminal_id in occupants:
                await self._free(occupants[terminal_id], terminal_id)
            elif departures.known(terminal_id):
                self._leasing.keeper.give_up(terminal_id)

    async def _free(self, account_id: str, terminal_id: str) -> None:
        """Have an account that nobody streams yet be given another terminal when somebody does."""
        if not self._hub.serves(account_id) and not await self._live.followers(account_id):
            await self._placement.free(account_id, terminal_id)

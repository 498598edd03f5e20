"""Terminals that are about to end: their accounts are moved, and then they are laid down."""

import structlog

from api_pool.fleet import Fleet, OwnedTerminal
from api_pool.places import Board, Places
from mt5kit.domain.instants import now_ms
from mt5kit.service.departures import Departures
from mt5kit.state.redis import BoardStore, PlacementStore, TerminalEntry

log = structlog.get_logger(__name__)


class Drainer:
    """Looks after those of our terminals that drain.

    Args:
        fleet: Our terminals.
        departures: Which of them drain.
        board: Which terminals take accounts; hears of those that we lay down.
        store: Where the other replicas hear of them.
        places: Moves accounts.
        placements: Which are where.
    """

    def __init__(
        self,
        fleet: Fleet,
        departures: Departures,
        board: Board,
        store: BoardStore,
        places: Places,
        placements: PlacementStore,
    ) -> None:
        self._fleet = fleet
        self._departures = departures
        self._board = board
        self._store = store
        self._places = places
        self._placements = placements
        self._given_up: set[str] = set()

    async def look(self) -> None:
        """Ask the supervisors, and do for each terminal that drains what can be done now.

        Raises:
            StateUnavailable: The state store is away.
        """
        draining = await self._departures.look(self._fleet.peers())
        await self._bid_farewell()
        for terminal_id in draining:
            if self._fleet.holds(terminal_id):
                await self._empty(self._fleet.terminal(terminal_id))

    async def _empty(self, terminal: OwnedTerminal) -> None:
        """Move its accounts to where there is room; lay it down when nothing is left, nor comes."""
        here = terminal.terminal_id
        room = {one: most for one, most in self._board.up().items() if one != here}
        counts = dict(await self._placements.counts([*room]))
        stay = 0
        for account_id in await self._placements.sessions(here):
            free = [one for one, most in room.items() if counts[one] < most]
            target = min(free, key=lambda one: counts[one], default=None)
            if target is None or not await self._places.move(account_id, here, target):
                stay += 1
                continue
            counts[target] += 1
            log.info("session_moved", source=here, target=target)
            self._fleet.part_with(here, (account_id,), moved=True)
        if not stay and not terminal.scheduler.waiting and self._departures.known(here):
            self._given_up.add(here)
            self._fleet.give_up(here)

    async def _bid_farewell(self) -> None:
        """Say of terminals that we have laid down that they are nobody's, so that none waits."""
        gone = {one: farewell(now_ms()) for one in self._given_up if not self._fleet.holds(one)}
        await self._store.publish(gone)
        self._board.told(gone)
        self._given_up -= gone.keys()


def farewell(now_ms: int) -> TerminalEntry:
    """What is said of a terminal that has drained and been laid down: it is nobody's."""
    return TerminalEntry("", up=False, since_ms=now_ms, switch_ms=None, waiting=0, draining=True)

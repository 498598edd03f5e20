"""Which terminal serves an account: one record for each account, and who is up to serve."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from api_pool.store_watch import StoreWatch
from mt5kit.domain.instants import now_ms
from mt5kit.errors import TerminalUnavailable
from mt5kit.state.redis import PlacementStore, StateFull, StateUnavailable, TerminalEntry

log = structlog.get_logger(__name__)

# A terminal that is down for longer loses its accounts to others; a restart takes less.
DOWN_GRACE_S: Final = 15.0
# An entry that nobody has renewed for so long is of a terminal without an owner.
STALE_S: Final = 15.0
# An account that is read like the others is refreshed once a cycle; half a cycle is for being late.
CYCLES_IN_DEFAULT_AGE: Final = 1.5
SHORTEST_DEFAULT_AGE_S: Final = 60.0
# Beyond this a terminal takes fewer sessions rather than let their age grow on.
LONGEST_DEFAULT_AGE_S: Final = 120.0
# Before the first login is measured: what logins take with a healthy broker.
ASSUMED_SWITCH_S: Final = 1.5
# Accounts remembered for when the state store is away: far more than take turns in an hour.
MOST_KNOWN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Room:
    """What the measured switch time leaves room for (design §4, contracts §1)."""

    capacity: int
    default_age_s: float

    @classmethod
    def at(cls, switch_s: float, most: int) -> "Room":
        """Sessions of one terminal and the default age at a switch time.

        A cycle through n sessions takes n x switch; the default age is a cycle and a half, at
        least 60 s and at most 120 s, and a terminal takes no more sessions than that leaves room
        for.
        """
        fit = int(LONGEST_DEFAULT_AGE_S / (CYCLES_IN_DEFAULT_AGE * max(switch_s, 0.001)))
        capacity = max(1, min(most, fit))
        age_s = CYCLES_IN_DEFAULT_AGE * capacity * switch_s
        return cls(capacity, min(max(age_s, SHORTEST_DEFAULT_AGE_S), LONGEST_DEFAULT_AGE_S))


class Board:
    """The terminals of the role: ours as they are now, the others as their owners last told.

    Args:
        terminals: All that are configured.
        most: Sessions of a terminal, at most.
        clock: Monotonic seconds.
    """

    def __init__(
        self, terminals: Iterable[str], most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._terminals = tuple(terminals)
        self._most = most
        self._clock = clock
        self._since = clock()
        self._theirs: dict[str, tuple[TerminalEntry, float]] = {}
        self._ours: Callable[[], Mapping[str, TerminalEntry]] = dict

    def attach(self, ours: Callable[[], Mapping[str, TerminalEntry]]) -> None:
        """Learn where to ask for our own terminals."""
        self._ours = ours

    def told(self, entries: Mapping[str, TerminalEntry]) -> None:
        """Take what was read; an entry counts as renewed when it has changed."""
        now = self._clock()
        for terminal_id, entry in entries.items():
            known = self._theirs.get(terminal_id)
            if known is None or known[0] != entry:
                self._theirs[terminal_id] = (entry, now)

    def up(self) -> dict[str, int]:
        """The terminals that take accounts, and how many each may have."""
        known = self._known().items()
        return {one: self._room(entry).capacity for one, entry in known if entry.open}

    def leaving(self) -> list[str]:
        """The terminals that drain and take turns yet."""
        return [one for one, entry in self._known().items() if entry.up and entry.draining]

    def bearable(self) -> list[str]:
        """The terminals that keep the accounts they have: up, or down since a moment ago.

        One that drains does, too, until its owner has moved them and laid it down.

        When this replica has just started, those of which it has not heard yet do so, too: they
        may be another's that starts just now.
        """
        known = self._known()
        until_ms = now_ms() - DOWN_GRACE_S * 1000
        bearable = [
            one
            for one, entry in known.items()
            if entry.owner and (entry.up or entry.since_ms > until_ms)
        ]
        if self._clock() - self._since < DOWN_GRACE_S:
            heard = known.keys() | self._theirs.keys()
            bearable += [one for one in self._terminals if one not in heard]
        return bearable

    def room(self, terminal_id: str) -> Room:
        """What a terminal has room for."""
        return self._room(self._known().get(terminal_id))

    @property
    def default_age_ms(self) -> int:
        """The age that a read takes unless it says otherwise: what the slowest terminal allows."""
        ages = [self._room(entry).default_age_s for entry in self._known().values()]
        return round(max(ages, default=SHORTEST_DEFAULT_AGE_S) * 1000)

    def _room(self, entry: TerminalEntry | None) -> Room:
        measured = None if entry is None else entry.switch_ms
        return Room.at(ASSUMED_SWITCH_S if measured is None else measured / 1000, self._most)

    def _known(self) -> dict[str, TerminalEntry]:
        now = self._clock()
        theirs = {one: entry for one, (entry, at) in self._theirs.items() if now - at < STALE_S}
        return {**theirs, **self._ours()}


class Places:
    """Places accounts, and remembers where they are while the state store is away.

    Args:
        store: The records.
        board: Which terminals take accounts.
        session_idle_s: A session unread for so long gives way when there is no room.
        watch: Knows whether the state store is away.
    """

    def __init__(
        self, store: PlacementStore, board: Board, session_idle_s: float, watch: StoreWatch
    ) -> None:
        self._store = store
        self._watch = watch
        self._board = board
        self._idle_ms = round(session_idle_s * 1000)
        self._known: OrderedDict[str, str] = OrderedDict()

    async def place(self, account_id: str) -> str:
        """The account's terminal; if it has none, or one that is gone, the emptiest.

        Raises:
            TerminalUnavailable: No terminal is up.
            ServiceOverloaded: No terminal has room; `retry_after_s` says when one may have.
            StateUnavailable: The state store is away, and we never knew.
        """
        up, keep = self._board.up(), self._board.bearable()
        if not keep and account_id in self._known:
            return self._known[account_id]
        if not up:
            return await self._kept(account_id, keep)
        try:
            terminal_id = await self._watch.asked(
                lambda: self._store.place(
                    account_id, [*up], keep=keep, capacity=up, idle_ms=self._idle_ms
                )
            )
        except StateFull:
            # Its place need not be written again where it has one.
            return await self._kept(account_id, keep)
        except StateUnavailable:
            if account_id not in self._known:
                raise
            return self._known[account_id]
        self._remember(account_id, terminal_id)
        return terminal_id

    async def _kept(self, account_id: str, keep: list[str]) -> str:
        """Where the account is, while none can be placed anew."""
        terminal_id = self._known.get(account_id) or await self.had(account_id)
        if terminal_id is None or terminal_id not in keep:
            raise TerminalUnavailable("no terminal takes another account now", retry_after_s=1)
        return terminal_id

    async def had(self, account_id: str) -> str | None:
        """The account's terminal, without placing it."""
        return await self._watch.asked(lambda: self._store.where(account_id))

    async def emptiest(self) -> str:
        """The terminal with the fewest accounts: where unproven credentials harm fewest.

        Where none takes another account, one that is about to end.

        Raises:
            TerminalUnavailable: No terminal is up.
        """
        up = [*self._board.up()] or self._board.leaving()
        if not up:
            raise TerminalUnavailable("no terminal is up yet", retry_after_s=1)
        counts = await self._store.counts(up)
        return min(up, key=lambda terminal_id: counts.get(terminal_id, 0))

    async def move(self, account_id: str, source: str, target: str) -> bool:
        """Let another terminal serve the account, if it has room and nobody was faster."""
        capacity = self._board.room(target).capacity
        moved = await self._store.move(account_id, source, target, capacity=capacity)
        if moved:
            self._remember(account_id, target)
        return moved

    async def remove(self, account_id: str) -> None:
        """Give up the account's place."""
        self._known.pop(account_id, None)
        await self._store.remove(account_id)

    async def give_up(self, account_id: str) -> None:
        """The same, where something else matters more than that this fails too."""
        try:
            await self.remove(account_id)
        except StateUnavailable as away:
            log.warning("place_not_given_up", error=away.message)

    def _remember(self, account_id: str, terminal_id: str) -> None:
        self._known[account_id] = terminal_id
        self._known.move_to_end(account_id)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

"""Which stream terminals are worth giving to an account: ours as we see them, others' as told."""

from collections.abc import Callable, Collection, Iterable, Mapping

from mt5kit.domain.instants import now_ms
from mt5kit.service.roster import Roster
from mt5kit.state.redis import BoardStore, TerminalEntry

BEAT_S = 1.0
"""Between two exchanges."""

STALE_MS = 5_000
"""An owner publishes every second; one that has not for so long may not be there."""


class StreamBoard:
    """Tells the other replicas and the API pool which of our terminals are up, and hears of theirs.

    Args:
        store: Where it is exchanged.
        instance_id: This replica.
        held: Those that this replica leases.
        up: Whether one of them answers.
        drains: Whether one of them is about to end.
        roster: Which terminals there are; hears what is said of them.
    """

    def __init__(
        self,
        store: BoardStore,
        instance_id: str,
        held: Callable[[], Collection[str]],
        up: Callable[[str], bool],
        drains: Callable[[str], bool],
        roster: Roster,
    ) -> None:
        self._store = store
        self._instance_id = instance_id
        self._held = held
        self._up = up
        self._drains = drains
        self._roster = roster
        self._since: dict[str, tuple[bool, int]] = {}
        self._told: Mapping[str, TerminalEntry] = {}

    async def beat(self) -> None:
        """Exchange once.

        Raises:
            StateUnavailable: Redis is away.
        """
        held = self._held()
        await self._store.publish({one: self._entry(one) for one in held})
        self._since = {one: said for one, said in self._since.items() if one in held}
        self._told = await self._store.read()
        self._roster.told(self._told)

    def candidates(self) -> list[str]:
        """Terminals that an account may be given, ours first; all there are while none is up."""
        return self._known_up() or self._ours_first(
            one for one in self._roster.terminals() if not self._leaves(one)
        )

    def others(self, terminal_id: str) -> list[str]:
        """Those that are up, but one."""
        return [one for one in self._known_up() if one != terminal_id]

    def _known_up(self) -> list[str]:
        held, oldest_ms = self._held(), now_ms() - STALE_MS
        return self._ours_first(
            one
            for one in self._roster.terminals()
            if (
                self._up(one) and not self._drains(one)
                if one in held
                else (told := self._told.get(one)) is not None
                and told.open
                and told.at_ms > oldest_ms
            )
        )

    def _comes(self, terminal_id: str) -> bool:
        """Whether a terminal was up when we were given it, just now: we have yet to connect."""
        told = self._told.get(terminal_id)
        return (
            terminal_id not in self._since
            and told is not None
            and told.up
            and told.at_ms > now_ms() - STALE_MS
        )

    def _leaves(self, terminal_id: str) -> bool:
        if terminal_id in self._held():
            return self._drains(terminal_id)
        return terminal_id in self._told and self._told[terminal_id].draining

    def _ours_first(self, terminals: Iterable[str]) -> list[str]:
        held = self._held()
        return sorted(terminals, key=lambda one: one not in held)

    def _entry(self, terminal_id: str) -> TerminalEntry:
        up = self._up(terminal_id) or self._comes(terminal_id)
        was_up, since_ms = self._since.get(terminal_id, (not up, 0))
        if was_up is not up:
            since_ms = now_ms()
            self._since[terminal_id] = (up, since_ms)
        return TerminalEntry(
            self._instance_id,
            up,
            since_ms,
            switch_ms=None,
            waiting=0,
            draining=self._drains(terminal_id),
        )

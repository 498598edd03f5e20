"""Which terminals of a role there are to share out."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from mt5kit.state.redis import BOARD_TTL_MS, TerminalEntry

# Its owners say every second that a terminal drains. One that nobody has for so long is tried
# again: it may have been started anew under its name.
DRAINED_S: Final = 10.0
# What an owner has said is true for so long.
SAID_S: Final = 5.0
# A container that is killed is back sooner; without a name and a connection it is gone.
GONE_S: Final = 30.0


class Roster:
    """The terminals that there are, as this replica knows it: for a lease keeper's plan.

    Of all that may ever be, those have to be left out that are not there: each replica takes its
    share of what it counts, so what nobody can use would take the place of what somebody can.

    Args:
        terminals: All that may ever be, in an order that is the same on every replica.
        there: Whether a terminal has an address.
        held: Those that this replica holds, and whether it is connected to them.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        terminals: Iterable[str],
        there: Callable[[str], bool],
        held: Callable[[], Mapping[str, bool]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terminals = tuple(terminals)
        self._there = there
        self._held = held
        self._clock = clock
        self._said: dict[str, tuple[TerminalEntry, float]] = {}
        self._connected: dict[str, float] = {}

    def told(self, entries: Mapping[str, TerminalEntry]) -> None:
        """Take what the owners of the terminals say; it counts as said anew when it has changed."""
        now = self._clock()
        for terminal_id, entry in entries.items():
            known = self._said.get(terminal_id)
            if known is None or known[0] != entry:
                self._said[terminal_id] = entry, now

    def drains(self, terminal_id: str) -> bool:
        """Whether a terminal drained when somebody last said anything of it."""
        return self._last_word(terminal_id, BOARD_TTL_MS / 1000).draining

    def terminals(self) -> list[str]:
        """Those that there are; of ours also those that drain, until they are given up."""
        held, now = self._held(), self._clock()
        for terminal_id in self._connected.keys() - held.keys():
            del self._connected[terminal_id]
        for terminal_id, connected in held.items():
            if connected or terminal_id not in self._connected:
                self._connected[terminal_id] = now
        return [
            one for one in self._terminals if (self._kept(one) if one in held else self._free(one))
        ]

    def _kept(self, terminal_id: str) -> bool:
        lost_s = self._clock() - self._connected[terminal_id]
        return self._there(terminal_id) or lost_s < GONE_S

    def _free(self, terminal_id: str) -> bool:
        if self._last_word(terminal_id, DRAINED_S).draining:
            return False
        # What is up is there, whatever our DNS says: shares must not follow its moods.
        return self._there(terminal_id) or self._last_word(terminal_id, SAID_S).up

    def _last_word(self, terminal_id: str, valid_s: float) -> TerminalEntry:
        entry, at = self._said.get(terminal_id, (_NOTHING, 0.0))
        return entry if self._clock() - at < valid_s else _NOTHING


_NOTHING: Final = TerminalEntry("", up=False, since_ms=0, switch_ms=None, waiting=0)

"""When the next numbered message may go, and which kind it is. Pure but for the clock given in."""

from collections.abc import Mapping

from websocket_pool.messages import Kind

SPACING_S = 0.1
"""At most 10 state messages a second and account (contracts §4)."""

PATIENCE_S = 0.4
"""After this whoever has waited goes before structural changes, so that nothing starves."""

LULL_S = 0.5
"""The market price of pending orders, which nobody decided, is told in a lull this long …"""

NO_LULL_S = 5.0
"""… or after this: taking turns with positions and account it would delay both by half."""

_LONG_AGO = float("-inf")


class Pacer:
    """Spaces the messages of one account and alternates their kinds.

    The clock is any that grows, in seconds; every call gives the same one.
    """

    def __init__(self) -> None:
        self._last_s = _LONG_AGO
        self._sent_s: dict[Kind, float] = {}
        self._since_s: dict[Kind, float] = {}
        self._dirty: Mapping[Kind, bool] = {}

    def note(self, now_s: float, dirty: Mapping[Kind, bool]) -> None:
        """Learn which kinds have something to tell; call it after every look.

        Args:
            now_s: The clock.
            dirty: Those kinds, and of each whether it is structural.
        """
        self._dirty = dirty
        self._since_s = {kind: self._since_s.get(kind, now_s) for kind in dirty}

    def free_s(self, now_s: float) -> float:
        """Seconds until any message may go."""
        return max(0.0, self._last_s + SPACING_S - now_s)

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until the next message may go; None if there is nothing to tell."""
        if not self._dirty:
            return None
        return max(0.0, min(map(self._ready_s, self._dirty)) - now_s)

    def choose(self, now_s: float) -> Kind | None:
        """The kind to send now, None if it is too early or there is nothing.

        The status comes first (it is seldom, and says what the rest is worth), then whoever has
        waited too long, then what is structural, then whoever was sent longest ago. What is chosen
        has nothing to tell any more.
        """
        ready = [kind for kind in self._dirty if self._ready_s(kind) <= now_s]
        if not ready:
            return None

        def rank(kind: Kind) -> tuple[bool, bool, bool, float]:
            patient = now_s - self._since_s[kind] < PATIENCE_S
            last_s = self._sent_s.get(kind, _LONG_AGO)
            return kind is not Kind.STATUS, patient, not self._dirty[kind], last_s

        chosen = min(ready, key=rank)
        self._last_s = self._sent_s[chosen] = now_s
        del self._since_s[chosen]
        self._dirty = {kind: how for kind, how in self._dirty.items() if kind is not chosen}
        return chosen

    def _ready_s(self, kind: Kind) -> float:
        if kind is Kind.ORDERS and not self._dirty[kind]:
            lull_s = min(self._last_s + LULL_S, self._since_s[kind] + NO_LULL_S)
            return max(self._last_s + SPACING_S, lull_s)
        return self._last_s + SPACING_S

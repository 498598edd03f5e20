"""Which of our terminals are about to end."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from mt5kit.terminal.supervisor import Peer, Supervisors

LOOK_S: Final = 1.0
"""Between two rounds: a container that is stopped gives a minute."""

# A supervisor that can be asked has answered by then.
INHERITED_S: Final = 10.0
# By then every replica has heard it: owners speak each second, and each second all listen.
HEARD_S: Final = 2.5


class Departures:
    """By their supervisors' word; until that comes, by the word of their last owner.

    Args:
        supervisors: Of the terminals.
        said: Whether a terminal drained when somebody last said anything of it.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        supervisors: Supervisors,
        said: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._supervisors = supervisors
        self._said = said
        self._clock = clock
        self._inherited: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def gained(self, terminal_id: str) -> None:
        """A terminal is ours from now on."""
        if self._said(terminal_id):
            self._inherited[terminal_id] = self._clock()

    def lost(self, terminal_id: str) -> None:
        """It is not ours any more."""
        self._inherited.pop(terminal_id, None)
        self._since.pop(terminal_id, None)

    def drain(self, terminal_id: str) -> bool:
        """Whether a terminal of ours drains: it takes no more accounts."""
        told = self._supervisors.draining(terminal_id)
        if told is not None:
            return told
        since = self._inherited.get(terminal_id, float("-inf"))
        return self._clock() - since < INHERITED_S

    def known(self, terminal_id: str) -> bool:
        """Whether it has drained for so long that nobody gives it an account any more."""
        since = self._since.get(terminal_id)
        return since is not None and self._clock() - since >= HEARD_S

    async def look(self, peers: Mapping[str, Peer | None]) -> list[str]:
        """Ask once; which of our terminals drain. See `Supervisors.look`."""
        await self._supervisors.look(peers)
        draining = [one for one in peers if self.drain(one)]
        now = self._clock()
        self._since = {one: self._since.get(one, now) for one in draining}
        return draining

    async def aclose(self) -> None:
        """Hang up."""
        await self._supervisors.aclose()

"""The API terminals of this replica: links, sessions, leases."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from api_pool.settings import ApiSettings
from mt5kit.errors import TerminalUnavailable
from mt5kit.state.keys import Keys
from mt5kit.state.redis import KeeperPlan, LeaseKeeper, LeaseStore, Redis
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard
from mt5kit.terminal.link import TerminalLink
from mt5kit.terminal.session import TerminalSession


class Fleet:
    """Every terminal of the role has a link; only the leased ones give turns.

    Args:
        links: By terminal id.
        keeper: Holds the leases.
        metrics: Of terminals.
    """

    def __init__(
        self, links: Mapping[str, TerminalLink], keeper: LeaseKeeper, metrics: TerminalMetrics
    ) -> None:
        self._links = links
        self._keeper = keeper
        self._sessions = {
            terminal_id: TerminalSession(link, self._token_source(terminal_id), metrics)
            for terminal_id, link in links.items()
        }

    @classmethod
    def of(cls, settings: ApiSettings, redis: Redis, keys: Keys, metrics: TerminalMetrics) -> Self:
        """Wire links and keeper from the settings; connects nothing yet."""
        guard = AddressGuard(settings.terminals_networks)
        links = {
            address.terminal_id: TerminalLink(address, guard, metrics)
            for address in settings.api_terminals
        }
        ids = tuple(links)
        plan = KeeperPlan("api", settings.instance_id, lambda: ids, settings.own_terminals)
        return cls(links, LeaseKeeper(LeaseStore(redis, keys), plan), metrics)

    @property
    def terminal_ids(self) -> Sequence[str]:
        """Every terminal of the role, ours or not."""
        return tuple(self._links)

    def session(self, terminal_id: str) -> TerminalSession:
        """The session of a terminal that this replica holds.

        Raises:
            TerminalUnavailable: It is another replica's, or nobody's yet, or unknown.
        """
        session = self._sessions.get(terminal_id)
        if session is None:
            raise TerminalUnavailable(f"terminal {terminal_id} is not configured", retry_after_s=5)
        self.token(terminal_id)
        return session

    def token(self, terminal_id: str) -> int:
        """The fencing token of our lease; raises TerminalUnavailable without one."""
        return self._keeper.token_of(terminal_id)

    def describe(self) -> dict[str, object]:
        """For `/health/ready`: which terminals are leased and connected."""
        return {
            terminal_id: {"leased": terminal_id in self._keeper.held, "connected": link.connected}
            for terminal_id, link in self._links.items()
        }

    async def start(self) -> None:
        """Take leases, then connect in the background; needs a running event loop."""
        self._keeper.start()
        for link in self._links.values():
            link.start()

    async def aclose(self) -> None:
        """Give the leases back first, so that another replica may go on, then hang up."""
        await self._keeper.close()
        await asyncio.gather(*(link.aclose() for link in self._links.values()))

    def _token_source(self, terminal_id: str) -> Callable[[], int]:
        return lambda: self._keeper.token_of(terminal_id)

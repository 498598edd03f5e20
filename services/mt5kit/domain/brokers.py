"""Which clock each broker server keeps, and which servers we know."""

from collections.abc import Mapping

from mt5kit.domain.broker_time import BrokerClock
from mt5kit.errors import BrokerUnknown


class Brokers:
    """The broker servers of the configuration.

    Args:
        rules: Clock rule by server; when empty, any server may be tried.
        default_rule: Of servers that are not listed.

    Raises:
        ValueError: A rule is unknown.
    """

    def __init__(self, rules: Mapping[str, str], default_rule: str) -> None:
        self._clocks = {server: BrokerClock(rule) for server, rule in rules.items()}
        self._default = BrokerClock(default_rule)

    def clock_of(self, server: str) -> BrokerClock:
        """The clock of a server."""
        return self._clocks.get(server, self._default)

    def check(self, server: str) -> None:
        """Refuse a server that is not on the list, if there is a list.

        MetaTrader says nothing of a server that does not exist: it waits the whole timeout.

        Raises:
            BrokerUnknown: There is a list, and the server is not on it.
        """
        if self._clocks and server not in self._clocks:
            raise BrokerUnknown(
                f"no broker server {server!r} is known here",
                details={"server": server, "known_servers": sorted(self._clocks)},
            )

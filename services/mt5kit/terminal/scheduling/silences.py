"""Brokers that did not answer a login, and how long to let them be."""

import math


class Silences:
    """Which accounts and broker servers are not tried just now.

    One login that hangs may be the account's own trouble, so it holds back that account alone,
    for as long as it took: it gets at most half of the terminal's time. A second account of the
    same server, with no login there in between, and the server itself is let be.

    Instants are seconds of the caller's monotonic clock.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, tuple[str, float]] = {}
        self._servers: dict[str, float] = {}
        # The first two that hung; more say no more.
        self._hung: dict[str, set[str]] = {}

    def timed_out(self, account_id: str, server: str, began: float, now: float) -> None:
        """A login that began then has just ended without an answer of the broker."""
        for past in [one for one, (_, until) in self._accounts.items() if until <= now]:
            del self._accounts[past]
        until = now + (now - began)
        self._accounts[account_id] = server, until
        hung = self._hung.setdefault(server, set())
        if len(hung) < 2:  # noqa: PLR2004 - two accounts make it the server
            hung.add(account_id)
        if len(hung) > 1:
            self._servers[server] = until

    def logged_in(self, account_id: str | None, server: str) -> None:
        """A broker server let somebody in; None is nobody of ours."""
        self._hung.pop(server, None)
        self._servers.pop(server, None)
        if account_id is not None:
            self._accounts.pop(account_id, None)

    def server_until(self, server: str) -> float:
        """Until when the server is let be; in the past when it is not."""
        return self._servers.get(server, -math.inf)

    def until(self, account_id: str, server: str | None = None) -> float:
        """Until when an account is let be; in the past when it is not.

        Args:
            account_id: The account.
            server: Its broker server, where it is known.
        """
        own_server, own_until = self._accounts.get(account_id, (server, -math.inf))
        # Under another server it is as good as another account.
        own = own_until if server in {None, own_server} else -math.inf
        known = server or own_server
        return own if known is None else max(own, self.server_until(known))

    def forget(self, account_id: str) -> None:
        """The account has gone."""
        self._accounts.pop(account_id, None)

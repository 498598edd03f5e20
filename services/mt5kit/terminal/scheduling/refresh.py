"""Which account a terminal with nobody waiting looks at next.

The age callers see, weighted by demand p, is smallest under a given rate of logins when accounts
are visited in periods proportional to 1/sqrt(p): for a switch of s seconds the mean age is then
(sum sqrt p)^2 * s / 2 (a Lagrange multiplier on sum p*T/2 with sum s/T = 1). It is the square-root
law of broadcast scheduling, and visiting whoever has the largest sqrt(p) * age is its on-line
rule (Vaidya and Hameed, "Scheduling data broadcast in asymmetric communication environments",
Wireless Networks 5, 1999).

Staying with an account keeps its age near zero for nothing but time. With a share g of the time
spent on it and f visits a second its mean age is (1 - g)^2 / 2f, and under the same multiplier
staying pays only where sqrt(p) is more than the sqrt(p) of all others together, S. At most one
account is that hot: its home is the terminal. The optimum there is to visit one other account
at a time, staying at home for 2s * (sqrt(p)/S - 1) in between, which gives 2s * sqrt(p) * S
in place of (sqrt(p) + S)^2 * s / 2.

Brokers count logins, and an age that nobody sees is worth none: an account that needs a login is
refreshed at most about twice as often as it is read. Twice, because reads do not come at equal
distances. Where all of it is read, a terminal is busy with periods far longer than that.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mt5kit.terminal.scheduling.parts import SchedulerRules

# An account nobody has looked at counts as this old, the lifetime of a cached look.
UNKNOWN_AGE_S: Final = 600.0
# Before the first login was measured: what the terminals of the field take.
ASSUMED_SWITCH_S: Final = 1.5
# Refreshes of an account for each read of it, at most.
REFRESHES_PER_READ: Final = 2.0
# Holding back an account whose logins hang doubles until it is this many times the first.
MOST_DOUBLINGS: Final = 5
# Records of accounts that left are dropped when they are this many.
MOST_STRANGERS: Final = 64


@dataclass(frozen=True, slots=True)
class Pick:
    """Look at this account now."""

    account_id: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """No refresh is due before this instant."""

    until: float


@dataclass(frozen=True, slots=True)
class Present:
    """The account that is in, since when, and the measured seconds of a switch."""

    account_id: str | None
    since: float
    switch_s: float | None

    @property
    def cost_s(self) -> float:
        """What a switch costs, measured or assumed."""
        return ASSUMED_SWITCH_S if self.switch_s is None else self.switch_s


class RefreshPlan:
    """Remembers looks and logins, and picks; times are seconds of one monotonic clock."""

    def __init__(self, rules: SchedulerRules) -> None:
        self._rules = rules
        self._looked: dict[str, float] = {}
        self._logged_in: dict[str, float] = {}
        self._skipped: dict[str, float] = {}
        self._servers: dict[str, str] = {}
        self._closed: dict[str, float] = {}
        self._hung: dict[str, int] = {}

    def looked(self, account_id: str, server: str, now: float, *, logged_in: bool) -> None:
        """A look was taken at `now`; with a login, or not."""
        self._looked[account_id] = now
        self._servers[account_id] = server
        self._skipped.pop(account_id, None)
        self._hung.pop(account_id, None)
        if logged_in:
            self._logged_in[account_id] = now

    def skip(self, account_id: str, until: float) -> None:
        """Leave an account out until then."""
        self._skipped[account_id] = until

    def skip_server(self, server: str, until: float) -> None:
        """Log no account in that is known to be on a broker server; one that is in is looked at."""
        self._closed[server] = max(until, self._closed.get(server, until))

    def hung(self, account_id: str, now: float, until: float) -> None:
        """Leave out an account whose login hung: until then, and twice as long each time."""
        times = self._hung.get(account_id, 0)
        self._hung[account_id] = min(times + 1, MOST_DOUBLINGS)
        self.skip(account_id, now + (until - now) * 2**times)

    def server_of(self, account_id: str) -> str | None:
        """The broker server of an account that was looked at."""
        return self._servers.get(account_id)

    def forget(self, account_id: str) -> None:
        """The account has gone."""
        records: tuple[dict[str, Any], ...] = (
            self._looked,
            self._logged_in,
            self._skipped,
            self._servers,
            self._hung,
        )
        for record in records:
            record.pop(account_id, None)

    def next(self, demand: Mapping[str, float], present: Present, now: float) -> Pick | Nothing:
        """The look to take now, or when to ask again."""
        self._drop_strangers(demand)
        self._closed = {server: until for server, until in self._closed.items() if until > now}
        here = present.account_id
        weights = {
            account_id: math.sqrt(rate)
            for account_id, rate in demand.items()
            if rate > 0
            and self._skipped.get(account_id, -math.inf) <= now
            and (account_id == here or self._servers.get(account_id) not in self._closed)
        }
        wakes = [until for until in self._skipped.values() if until > now]
        wakes += self._closed.values()
        if here is not None and here in weights:
            look_at = self._looked.get(here, -math.inf) + self._rules.dwell_look_s
            if look_at <= now:
                return Pick(here)
            wakes.append(look_at)
        away, due_at = self._away(demand, weights, present, now)
        if away is not None:
            return Pick(away)
        return Nothing(min([*wakes, due_at]))

    def _away(
        self,
        demand: Mapping[str, float],
        weights: Mapping[str, float],
        present: Present,
        now: float,
    ) -> tuple[str | None, float]:
        """Whom to log in, or when that may change."""
        here = present.account_id
        home = home_of(weights)
        if home is not None and home == here:
            leave_at = present.since + stay_s(weights, home, present.cost_s)
            if now < leave_at:
                return None, leave_at
        elif home is not None:
            home_at = self._logged_in.get(home, -math.inf)
            if now >= home_at + self._apart_s(demand[home], present.cost_s):
                return home, now
        best, best_index, due_at = None, -1.0, math.inf
        for account_id, weight in weights.items():
            if account_id == here:
                continue
            # Home is looked at without logins all the time, so its last login counts.
            since = self._logged_in if account_id == home else self._looked
            apart_s = self._apart_s(demand[account_id], present.cost_s)
            due = since.get(account_id, -math.inf) + apart_s
            due_at = min(due_at, due)
            index = weight * self._age(account_id, now)
            if due <= now and index > best_index:
                best, best_index = account_id, index
        return best, due_at

    def _apart_s(self, rate: float, cost_s: float) -> float:
        """From a look to the next login: that ends in a look, and looks are a period apart."""
        period_s = max(self._rules.min_period_s, 1 / (REFRESHES_PER_READ * rate))
        return max(period_s - cost_s, 0.0)

    def _age(self, account_id: str, now: float) -> float:
        return min(now - self._looked.get(account_id, -math.inf), UNKNOWN_AGE_S)

    def _drop_strangers(self, demand: Mapping[str, float]) -> None:
        if len(self._servers) + len(self._skipped) > 2 * len(demand) + MOST_STRANGERS:
            known = self._looked.keys() | self._skipped.keys() | self._servers.keys()
            for account_id in known - demand.keys():
                self.forget(account_id)


def home_of(weights: Mapping[str, float]) -> str | None:
    """The account that outweighs all others together, if there is one."""
    if not weights:
        return None
    hottest = max(weights, key=lambda account_id: weights[account_id])
    others = sum(weights.values()) - weights[hottest]
    return hottest if weights[hottest] > others else None


def stay_s(weights: Mapping[str, float], home: str, switch_s: float) -> float:
    """How long to stay at home between two visits of others."""
    others = sum(weights.values()) - weights[home]
    return math.inf if others <= 0 else 2 * switch_s * (weights[home] / others - 1)

"""Opening a house: each account from its scenario, or from where a journal has left it."""

from dataclasses import dataclass
from functools import partial

from terminal_sim.broker.agenda import upcoming
from terminal_sim.broker.desk import Tickets
from terminal_sim.broker.founding import counted_from, mark, midnight_ms
from terminal_sim.broker.journal import Anchor, Journal, JournalError
from terminal_sim.broker.life import Life, Rules
from terminal_sim.broker.past import Past, pricing, profile
from terminal_sim.broker.plans import LIVE_TICKETS
from terminal_sim.broker.values import Terms
from terminal_sim.scenario.model import Account, Scenario, Server
from terminal_sim.scenario.moments import DAY_MS


@dataclass(frozen=True)
class Founding:
    """What a house begins with.

    Attributes:
        anchor: When it began and how far it has come.
        terms: Of the server, without shifts of its clock.
        server: As the scenario describes it.
        accounts: Its accounts, with relative times counted from the anchor.
        ordinals: Their places in the scenario.
    """

    anchor: Anchor
    terms: Terms
    server: Server
    accounts: tuple[Account, ...]
    ordinals: dict[int, int]


@dataclass(frozen=True)
class Opened:
    """An account in business."""

    account: Account
    past: Past
    life: Life


def founded(scenario: Scenario, name: str, journal: Journal, now_ms: int) -> Founding:
    """Return what the house of a server begins with; a new journal begins now.

    Raises:
        JournalError: The journal is another server's, or of another seed.
    """
    server = scenario.server(name)
    if server is None:
        raise ValueError(f"no server is named {name!r}")
    anchor = journal.anchor()
    if anchor is None:
        midnight = midnight_ms(scenario)
        if midnight is None:
            midnight = now_ms - now_ms % DAY_MS
        anchor = Anchor(name, scenario.seed, now_ms, midnight, now_ms, LIVE_TICKETS - 1)
        journal.begin(anchor)
    if anchor.server != name:
        raise JournalError(
            f"{journal.where}: belongs to the server {anchor.server!r}, not {name!r}"
        )
    if anchor.seed != scenario.seed:
        raise JournalError(
            f"{journal.where}: was begun with seed {anchor.seed}, the scenario has {scenario.seed}"
        )
    held = [(i, each) for i, each in enumerate(scenario.accounts) if each.server == name]
    return Founding(
        anchor=anchor,
        terms=Terms(
            server=name,
            company=server.company,
            seed=scenario.seed,
            clock=server.clock,
            commission=server.commission,
            trading_days=server.trading_days,
        ),
        server=server,
        accounts=tuple(counted_from(each, anchor.midnight_ms) for _, each in held),
        ordinals={each.login: ordinal for ordinal, each in held},
    )


def opened(
    founding: Founding, account: Account, rules: Rules, journal: Journal, tickets: Tickets
) -> Opened:
    """Open an account where its journal has left it; one that is new to the journal, now.

    Raises:
        JournalError: The scenario tells another past of the account than the journal's.
    """
    ordinal, anchor = founding.ordinals[account.login], founding.anchor
    token = mark(account, ordinal, founding.server)
    known = journal.mark(account.login)
    if known not in {None, token}:
        raise JournalError(
            f"{journal.where}: account {account.login} is not what the scenario says; restore the"
            " scenario or move the journal away"
        )
    past = Past(account, ordinal, rules, anchor.began_ms)
    if known is None:
        begun = past.begin()
        journal.add(token, begun.state, begun.changes)
        for item in begun.hand.items():
            journal.hold(account.login, item)
    state = journal.state(profile(account))
    since_ms = anchor.advanced_ms if known else anchor.began_ms
    days = rules.terms.trading_days
    events = upcoming(past.doings(), pricing(account, rules), rules.wall, days, since_ms)
    hand = journal.in_hand(account.login, partial(journal.hold, account.login))
    return Opened(account, past, Life(state, events, rules, tickets, hand))

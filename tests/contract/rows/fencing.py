"""540-559: what only our agent can express: guarded reads, fencing, and the long poll."""

import msgspec
import pytest
from tests.contract.case import EVER, Case
from tests.contract.catalogue import Need, row
from tests.contract.clients import PATIENCE_S, NotIn
from tests.contract.trading import done, market

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import PollSuperseded, StaleToken, WrongAccount
from mt5kit.terminal.answers import Look


@row(540, "a read that names another login is refused", Need.GUARD, core=True)
def other_login(case: Case) -> None:
    agent = case.agent()
    agent.identity = AccountIdentity(case.target.home.login + 1, case.target.home.server)
    with pytest.raises(WrongAccount):
        agent.look()
    with pytest.raises(WrongAccount):
        agent.deals(0, 1)


@row(541, "a read that names another server is refused", Need.GUARD)
def other_server(case: Case) -> None:
    agent = case.agent()
    agent.identity = AccountIdentity(case.target.home.login, "Another-Server")
    with pytest.raises(WrongAccount):
        agent.look()
    # The link itself sees whose a look is, but not whose deals are.
    with pytest.raises(WrongAccount):
        agent.deals(0, 1)


@row(542, "a login behind its back makes a read refuse", Need.GUARD, Need.TWO_ACCOUNTS, core=True)
def behind_its_back(case: Case) -> None:
    case.log_in(case.target.second)
    with pytest.raises(WrongAccount):
        case.agent().look()
    with pytest.raises(WrongAccount):
        case.agent().deals(0, 1)


@row(543, "an owner that a newer one has replaced is refused", Need.GUARD)
def stale(case: Case) -> None:
    agent = case.agent()
    agent.look()
    agent.token -= 1
    with pytest.raises(StaleToken):
        agent.look()


@row(544, "an account that is in is not logged in again", Need.GUARD)
def not_again(case: Case) -> None:
    agent = case.agent()
    logins = case.mt5.eval("__import__('sys').modules['_mt5_swarm_fence'].logins")
    agent.sign_in(case.target.home, prove=False)
    assert case.mt5.eval("__import__('sys').modules['_mt5_swarm_fence'].logins") == logins


@row(545, "a probe says who is in", Need.GUARD, core=True)
def probed(case: Case) -> None:
    agent = case.agent()
    assert agent.run(agent.link.probe(agent.token)) == agent.identity


@row(546, "a probe says that nobody is in after a refused login", Need.GUARD)
def probed_nobody(case: Case) -> None:
    agent = case.agent()
    with pytest.raises(NotIn):
        agent.sign_in(case.target.home, password="wrong")
    assert agent.run(agent.link.probe(agent.token)) is None


@row(547, "the size of a history is its deals and orders of all time", Need.GUARD, core=True)
def sized(case: Case) -> None:
    agent = case.agent()
    size = agent.run(agent.link.history_size(agent.token, agent.identity))
    assert size.funded
    assert size.deals == len(agent.deals(*EVER)) > 0
    assert size.orders == len(agent.done_orders(*EVER))


@row(548, "refused credentials are not tried again unless to prove them", Need.GUARD)
def not_tried_again(case: Case) -> None:
    agent = case.agent()
    # The first one, typed, ends the session; the second one counts as stored.
    for prove in (True, False):
        with pytest.raises(NotIn):
            agent.sign_in(case.target.home, password="wrong", prove=prove)
    logins = case.mt5.eval("__import__('sys').modules['_mt5_swarm_fence'].logins")
    with pytest.raises(NotIn) as again:
        agent.sign_in(case.target.home, password="wrong", prove=False)
    assert again.value.code == case.constant("RES_E_AUTH_FAILED")
    assert case.mt5.eval("__import__('sys').modules['_mt5_swarm_fence'].logins") == logins
    # The right password is another matter, and lets the account in.
    agent.sign_in(case.target.home, prove=False)


@row(550, "the first poll answers at once, the next with what has changed", Need.POLL, core=True)
def polled(case: Case) -> None:
    agent = case.agent()
    # The client loses its patience before this poll's time is over: it answers at once or fails.
    first = agent.poll("", PATIENCE_S + 10)
    assert first.snapshot.identity == agent.identity
    again = agent.poll(first.version)
    changed = again.version != first.version
    assert changed is (told(again) != told(first))
    assert changed or not case.target.simulated  # at a broker the market may be closed


def told(look: Look) -> Snapshot:
    """A look without the instant when it was taken."""
    return msgspec.structs.replace(look.snapshot, seen_ms=0)


@row(551, "a poll sees a position that somebody opens", Need.POLL, Need.TRADING, core=True)
def sees_a_position(case: Case) -> None:
    agent = case.agent()
    version = agent.poll("").version
    ticket = done(case, market(case))["order"]

    def seen() -> bool:
        nonlocal version
        look = agent.poll(version)
        version = look.version
        return ticket in [position.identifier for position in look.snapshot.positions]

    case.eventually(seen)


@row(552, "a newer poll ends an older one", Need.POLL)
def superseded(case: Case) -> None:
    agent = case.agent()
    older = agent.poll("").version
    case.mt5.execute(
        "import sys\nsys.modules['_mt5_swarm_fence'].generation += 1"  # as a newer owner does
    )
    with pytest.raises(PollSuperseded):
        agent.poll(older)


@row(553, "a poll refuses when another account is in", Need.POLL, Need.TWO_ACCOUNTS)
def poll_refuses(case: Case) -> None:
    agent = case.agent()
    version = agent.poll("").version
    case.log_in(case.target.second)
    with pytest.raises(WrongAccount):
        agent.poll(version)

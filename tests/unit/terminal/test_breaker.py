"""When a terminal counts as gone, and when it is asked again."""

import random

import pytest

from mt5kit.backoff import Backoff
from mt5kit.errors import (
    BrokerTimeout,
    CallFailed,
    LoginRefused,
    Mt5SwarmError,
    StaleToken,
    TerminalTimeout,
    TerminalUnavailable,
    WrongAccount,
)
from mt5kit.terminal.scheduling.breaker import FIRST_PROBE_S, LAST_PROBE_S, Breaker


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[bool, Mt5SwarmError | None]] = []

    def __call__(self, up: bool, why: Mt5SwarmError | None) -> None:
        self.heard.append((up, why))


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def breaker(listener: Listener) -> Breaker:
    backoff = Backoff(FIRST_PROBE_S, LAST_PROBE_S, rng=random.Random(1))
    return Breaker(listener, backoff)


def test_one_timeout_opens(breaker: Breaker, listener: Listener) -> None:
    late = TerminalTimeout("late")
    breaker.failed(late, 100.0)
    assert breaker.open
    assert listener.heard == [(False, late)]
    assert 100.25 <= breaker.probe_at <= 100.5
    assert breaker.retry_after_s(100.0) == breaker.probe_at - 100.0
    # Never a promise of no time at all.
    assert breaker.retry_after_s(200.0) > 0


def test_one_absence_does_not_two_do(breaker: Breaker, listener: Listener) -> None:
    breaker.failed(TerminalUnavailable("away"), 0)
    assert not breaker.open
    breaker.answered()
    breaker.failed(TerminalUnavailable("away"), 0)
    assert not breaker.open
    breaker.failed(TerminalUnavailable("away"), 0)
    assert breaker.open
    assert [up for up, _ in listener.heard] == [False]


@pytest.mark.parametrize(
    "refusal", [WrongAccount, StaleToken, CallFailed, BrokerTimeout, LoginRefused]
)
def test_a_refusal_is_an_answer(breaker: Breaker, refusal: type[Mt5SwarmError]) -> None:
    for _ in range(3):
        breaker.failed(TerminalUnavailable("away"), 0)
        breaker.failed(refusal("no"), 0)
        assert not breaker.open
    breaker.failed(TerminalTimeout("late"), 0)
    breaker.failed(refusal("no"), 0)
    assert not breaker.open


def test_probes_come_more_and_more_seldom_until_one_is_answered(
    breaker: Breaker, listener: Listener
) -> None:
    at, pauses = 0.0, []
    for _ in range(8):
        breaker.failed(TerminalTimeout("late"), at)
        pauses.append(breaker.probe_at - at)
        at = breaker.probe_at
    assert 0.25 <= pauses[0] <= 0.5
    assert all(2.5 <= pause <= 5.0 for pause in pauses[4:])
    breaker.answered()
    assert not breaker.open
    assert [up for up, _ in listener.heard] == [False, True]
    breaker.failed(TerminalTimeout("late"), at)
    assert breaker.probe_at - at <= 0.5

"""What was done to an account elsewhere is heeded here."""

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from api_pool.fleet import Fleet, FleetParts
from api_pool.invalidation import Invalidation
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.errors import AccountNotFound, Conflict, LoginRefused
from mt5kit.secret import Secret
from mt5kit.state.redis import Control
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.scheduling import RefusalMemory


class Heard:
    """Directory, looks, fleet, terminal and scheduler in one: notes who is told what."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.reasons: list[Exception] = []
        self.owned = {"t-1": self, "t-2": self}
        self.scheduler = self

    def invalidate(self, account_id: str) -> None:
        self.told.append(("row", account_id))

    def drop(self, account_id: str) -> None:
        self.told.append(("look", account_id))

    def credentials_proven(self, account_id: str) -> None:
        self.told.append(("refusal", account_id))

    def forget(self, account_id: str, reason: Exception) -> None:
        self.told.append(("session", account_id))
        self.reasons.append(reason)

    def invalidate_all(self) -> None:
        self.told.append(("row", "*"))

    def forget_refusals(self) -> None:
        self.told.append(("refusal", "*"))

    async def listen(self, stands: Callable[[], None]) -> AsyncIterator[tuple[str, Control]]:
        stands()
        for control in Control:
            yield control.value, control


def heeding(heard: Any) -> Invalidation:
    return Invalidation(heard, heard, heard, heard)


@pytest.mark.parametrize(
    ("control", "reason"), [(Control.DISCONNECT, Conflict), (Control.DELETED, AccountNotFound)]
)
def test_an_ended_account_is_forgotten_everywhere(
    control: Control, reason: type[Exception]
) -> None:
    heard = Heard()
    heeding(heard).heed("alpha", control)
    told = ["row", "look", "session", "session"]
    assert heard.told == [(what, "alpha") for what in told]
    assert [type(one) for one in heard.reasons] == [reason, reason]


def test_new_credentials_end_no_session() -> None:
    heard = Heard()
    heeding(heard).heed("alpha", Control.CREDENTIALS)
    assert heard.told == [("row", "alpha"), ("refusal", "alpha")]


async def test_everything_that_is_told_is_heeded() -> None:
    heard = Heard()
    await heeding(heard).listen()
    # When the subscription stands, what went before may have been lost.
    assert heard.told[:2] == [("row", "*"), ("refusal", "*")]
    told = {account_id for _, account_id in heard.told[2:]}
    assert told == {control.value for control in Control}


def test_credentials_that_are_good_again_are_refused_nowhere() -> None:
    refusals = RefusalMemory()
    credentials = Credentials(AccountIdentity(7, "S"), Secret("right after all"))
    refusals.remember("alpha", credentials, LoginRefused("no"))
    with pytest.raises(LoginRefused):
        refusals.check("alpha", credentials)
    absent: Any = None
    parts = FleetParts(
        instance_id="api-1",
        addresses={},
        guard=absent,
        sessions=absent,
        looks=absent,
        budget=absent,
        metrics=absent,
        session_metrics=absent,
        refusals=refusals,
        journal=absent,
    )
    heard = cast("Any", Heard())
    Invalidation(heard, heard, heard, Fleet(parts, absent)).heed("alpha", Control.CREDENTIALS)
    refusals.check("alpha", credentials)

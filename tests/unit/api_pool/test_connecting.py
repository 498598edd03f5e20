"""Why a connect failed is what the caller learns, whatever else fails on the way out."""

from typing import Any
from uuid import uuid4

import pytest

from api_pool.connecting import Connector
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.brokers import Brokers
from mt5kit.errors import LoginRefused
from mt5kit.secret import Secret
from mt5kit.state.redis import StateUnavailable
from mt5kit.terminal.credentials import Credentials


class RefusingFleet:
    terminal_ids = ("t-1",)

    def session(self, terminal_id: str) -> "RefusingFleet":
        return self

    async def prove(self, credentials: Credentials, *, deadline_s: float) -> None:
        raise LoginRefused("the broker refused these credentials")


class VanishingLooks:
    """Places an account, and is away when it is to forget it."""

    def __init__(self) -> None:
        self.placements = self
        self.forgotten: list[str] = []

    async def where(self, account_id: str) -> None:
        return None

    async def place(self, account_id: str, terminals: object) -> str:
        return "t-1"

    async def forget(self, account_id: str) -> None:
        self.forgotten.append(account_id)
        raise StateUnavailable("away")


async def test_a_refusal_is_not_hidden_by_a_failing_clean_up() -> None:
    looks, absent = VanishingLooks(), object()
    parts: dict[str, Any] = {
        "reader": absent,
        "fleet": RefusingFleet(),
        "directory": absent,
        "looks": looks,
        "control": absent,
        "brokers": Brokers({}, "UTC"),
        "login_timeout_s": 1,
    }
    credentials = Credentials(AccountIdentity(1, "S"), Secret("wrong"))
    with pytest.raises(LoginRefused):
        await Connector(**parts).connect(uuid4(), "alpha", credentials)
    assert looks.forgotten == ["alpha"]

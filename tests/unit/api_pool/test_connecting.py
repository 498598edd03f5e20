"""What a connect leaves behind, and what it tries how often."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from tests.unit.api_pool.looks_made import snapshot

from api_pool import connecting as connecting_module
from api_pool.connecting import PROOF_TRIES, Connector
from api_pool.limits import RateLimiter
from api_pool.turns import ProofTurn, Taken
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.brokers import Brokers
from mt5kit.errors import (
    AccountNotFound,
    BrokerTimeout,
    LoginRefused,
    Mt5SwarmError,
    RateLimited,
    ServiceOverloaded,
    TerminalMoved,
    TerminalTimeout,
)
from mt5kit.secret import Secret
from mt5kit.state.redis import Control, StateUnavailable
from mt5kit.terminal.credentials import Credentials
from mt5kit.vault import KeyRing, Vault

CREDENTIALS = Credentials(AccountIdentity(1, "S"), Secret("typed"))


class World:
    """Implements all that a connector asks but the vault; notes in `told` what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.had_place: str | None = None
        self.room: Mt5SwarmError | None = None
        self.foreign = False
        self.away = False
        self.failures: list[Mt5SwarmError] = []
        self.proofs: list[tuple[str, ProofTurn]] = []
        self.saved: list[Credentials] = []
        self.vault = Vault(KeyRing.generate())
        parts: dict[str, Any] = dict.fromkeys(
            ("directory", "router", "places", "looks", "pages", "syncs", "control"), self
        )
        self.connector = Connector(
            **parts,
            brokers=Brokers({}, "UTC"),
            vault=self.vault,
            limiter=RateLimiter("user's connects", 5, burst_s=1),
            turn_deadline_s=5,
        )

    @asynccontextmanager
    async def connecting(self, _user: UUID, _account_id: str) -> AsyncIterator[None]:
        if self.foreign:
            raise AccountNotFound("none")
        self.told.append(("connecting", ""))
        try:
            yield
        except BaseException:
            self.told.append(("put back", ""))
            raise

    async def save(self, _user: UUID, _account_id: str, proven: Credentials) -> None:
        self.saved.append(proven)

    async def had(self, _account_id: str) -> str | None:
        return self.had_place

    async def place(self, _account_id: str) -> str:
        if self.room is not None:
            raise self.room
        self.told.append(("placed", "t-1"))
        return "t-1"

    async def emptiest(self) -> str:
        return "t-2"

    async def give_up(self, _account_id: str) -> None:
        self.told.append(("given up", ""))

    async def move(self, _account_id: str, source: str, target: str) -> bool:
        self._stored()
        self.told.append(("moved", f"{source} {target}"))
        return True

    async def on_terminal(self, terminal_id: str, turn: ProofTurn, _deadline_s: float) -> Taken:
        self.proofs.append((terminal_id, turn))
        if self.failures:
            raise self.failures.pop(0)
        payload = msgspec.Raw(msgspec.json.encode(snapshot(login=7)))
        return Taken(terminal_id, "api-2", 3, 1000, 1.0, 2.0, payload)

    async def forget(self, _account_id: str) -> None:
        self._stored()

    async def drop(self, _account_id: str) -> None:
        self._stored()

    async def publish(self, _account_id: str, control: Control) -> int:
        self.told.append(("published", control.value))
        return 1

    def heard(self, _account_id: str, _kept: object) -> None:
        self.told.append(("heard", ""))

    async def share(self, _account_id: str, token: int, _kept: object) -> None:
        self.told.append(("shared", str(token)))

    def _stored(self) -> None:
        if self.away:
            raise StateUnavailable("away")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(connecting_module, "PROOF_PAUSE_S", 0)
    return World()


async def test_what_logged_in_is_kept_under_the_identity_that_the_terminal_said(
    world: World,
) -> None:
    answer = await world.connector.connect(uuid4(), "alpha", CREDENTIALS)
    (proven,) = world.saved
    assert proven.identity == AccountIdentity(7, "Server-1")
    assert proven.password.reveal() == "typed"
    assert answer.account.login == 7
    assert (answer.terminal_id, answer.instance_id) == ("t-1", "api-2")
    ((terminal_id, turn),) = world.proofs
    assert terminal_id == "t-1"
    assert world.vault.open(turn.sealed, turn.binding).reveal() == "typed"
    assert world.told == [
        ("connecting", ""),
        ("placed", "t-1"),
        ("published", "credentials"),
        ("heard", ""),
        ("shared", "3"),
    ]


async def test_new_credentials_are_proven_where_it_is_emptiest_and_served_there(
    world: World,
) -> None:
    world.had_place = "t-1"
    answer = await world.connector.connect(uuid4(), "alpha", CREDENTIALS)
    assert answer.terminal_id == "t-2"
    assert ("moved", "t-1 t-2") in world.told


@pytest.mark.parametrize(
    "failure",
    [
        LoginRefused("no"),
        BrokerTimeout("silent"),
        TerminalTimeout("unknown"),
        ServiceOverloaded("too many"),
    ],
)
@pytest.mark.parametrize("had", [None, "t-1"])
async def test_a_password_is_tried_once_and_what_fails_leaves_nothing(
    world: World, failure: Mt5SwarmError, had: str | None
) -> None:
    world.failures, world.had_place = [failure], had
    with pytest.raises(type(failure)):
        await world.connector.connect(uuid4(), "alpha", CREDENTIALS)
    assert len(world.proofs) == 1
    assert world.saved == []
    undone = ["given up", "put back"] if had is None else ["put back"]
    assert [what for what, _ in world.told][-len(undone) :] == undone
    assert ("heard", "") not in world.told


async def test_a_terminal_that_moves_is_tried_again_for_nothing_was_begun(world: World) -> None:
    world.failures = [TerminalMoved("moved")] * (PROOF_TRIES - 1)
    await world.connector.connect(uuid4(), "alpha", CREDENTIALS)
    assert len(world.proofs) == PROOF_TRIES
    world.failures = [TerminalMoved("moved")] * PROOF_TRIES
    with pytest.raises(TerminalMoved):
        await world.connector.connect(uuid4(), "alpha", CREDENTIALS)
    assert len(world.proofs) == 2 * PROOF_TRIES


async def test_a_full_pool_leaves_nothing_behind(world: World) -> None:
    world.room = ServiceOverloaded("full", retry_after_s=42)
    with pytest.raises(ServiceOverloaded) as full:
        await world.connector.connect(uuid4(), "alpha", CREDENTIALS)
    assert full.value.retry_after_s == 42
    assert world.proofs == []
    assert world.told == [("connecting", ""), ("put back", "")]


async def test_another_users_account_takes_and_loses_no_place(world: World) -> None:
    world.foreign = True
    with pytest.raises(AccountNotFound):
        await world.connector.connect(uuid4(), "alpha", CREDENTIALS)
    assert (world.told, world.proofs) == ([], [])


async def test_a_state_store_that_goes_away_fails_no_connect_that_is_stored(
    world: World,
) -> None:
    world.had_place, world.away = "t-1", True
    assert (await world.connector.connect(uuid4(), "alpha", CREDENTIALS)).account.login == 7
    assert ("heard", "") in world.told


async def test_a_user_connects_so_often_and_others_do_not_mind(world: World) -> None:
    user = uuid4()
    for _ in range(5):
        await world.connector.connect(user, "alpha", CREDENTIALS)
    with pytest.raises(RateLimited) as limited:
        await world.connector.connect(user, "alpha", CREDENTIALS)
    assert limited.value.retry_after_s
    assert len(world.proofs) == 5
    await world.connector.connect(uuid4(), "alpha", CREDENTIALS)

"""What a connect leaves behind, and what it tries how often."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest
from tests.unit.api_pool.looks_made import snapshot

from api_pool import connecting as connecting_module
from api_pool import routing
from api_pool.connecting import Connector
from api_pool.directory import KnownAccount
from api_pool.turns import ProofTurn, Taken
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.brokers import Brokers
from mt5kit.errors import (
    AccountNotFound,
    BrokerTimeout,
    LoginRefused,
    Mt5SwarmError,
    RateLimited,
    ServiceOverloaded,
    TerminalHandedOver,
    TerminalMoved,
    TerminalTimeout,
)
from mt5kit.secret import Secret
from mt5kit.service.background import Background
from mt5kit.state.postgres import AccountRow, AuditEntry, WorkerStore
from mt5kit.state.redis import Control, LoginBudgetStore, StateUnavailable
from mt5kit.terminal.credentials import Credentials
from mt5kit.vault import KeyRing, Vault

ERASED = [("removed", "alpha"), ("published", "deleted"), ("cancelled", "alpha")]
STRANGER = uuid4()
MOST_CONNECTS = 5
CREDENTIALS = Credentials(AccountIdentity(1, "S"), Secret("typed"))


class World:
    """Implements all that a connector asks but the vault; notes in `told` what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.connects: Counter[str] = Counter()
        self.had_place: str | None = None
        self.room: Mt5SwarmError | None = None
        self.foreign = False
        self.away = False
        self.failures: list[Mt5SwarmError] = []
        self.proofs: list[tuple[str, ProofTurn]] = []
        self.saved: list[Credentials] = []
        self.exists = True
        self.vault = Vault(KeyRing.generate())
        self.background = Background()
        parts: dict[str, Any] = dict.fromkeys(
            ("directory", "router", "places", "looks", "pages", "syncs", "control"), self
        )
        self.connector = Connector(
            **parts,
            brokers=Brokers({}, "UTC"),
            vault=self.vault,
            background=self.background,
            worker=cast("WorkerStore", self),
            budget=cast("LoginBudgetStore", self),
            connects_per_minute=5,
            turn_deadline_s=5,
        )

    async def take_connect(self, user: str, _per_minute: float) -> float:
        self.connects[user] += 1
        return 0.0 if self.connects[user] <= MOST_CONNECTS else 3.5

    async def owner(self, _account_id: str) -> UUID | None:
        return STRANGER if self.foreign else None

    @asynccontextmanager
    async def connecting(self, _user: UUID, _account_id: str) -> AsyncIterator[None]:
        self.told.append(("connecting", ""))
        try:
            yield
        except BaseException:
            self.told.append(("put back", ""))
            raise

    async def find_now(self, _user: UUID, account_id: str) -> KnownAccount:
        self.told.append(("sought", account_id))
        if not self.exists:
            raise AccountNotFound("none")
        return known(account_id)

    async def delete(self, account: KnownAccount, audit: AuditEntry) -> None:
        self.exists = False
        self.told.append(("deleted", f"{audit.action} of {account.account_id} by {audit.actor}"))

    async def remove(self, account_id: str) -> None:
        self._stored()
        self.told.append(("removed", account_id))

    async def cancel_account(self, account_id: str) -> bool:
        self._stored()
        self.told.append(("cancelled", account_id))
        return True

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

    def drop(self, account_id: str) -> "asyncio.Future[None]":
        """Both what looks forget at once, and what pages forget in the state store."""
        self.told.append(("dropped", account_id))
        return _done()

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


def _done() -> "asyncio.Future[None]":
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def known(account_id: str) -> KnownAccount:
    row = AccountRow(
        id=1,
        uuid=uuid4(),
        user_id=uuid4(),
        account_id=account_id,
        identity=AccountIdentity(7, "S"),
        state=AccountState.CONNECTED,
        state_since_ms=0,
        last_error=None,
        is_active=True,
        last_login_ms=None,
        last_poll_ms=None,
    )
    return KnownAccount(row)


def erased(world: World) -> list[tuple[str, str]]:
    return [told for told in world.told if told in ERASED]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(connecting_module, "PROOF_PAUSE_S", 0)
    monkeypatch.setattr(connecting_module, "ERASE_AGAIN_S", 0)
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
        ("dropped", "alpha"),
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


async def test_a_terminal_that_moves_is_tried_again_for_nothing_was_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.failures = [TerminalMoved("moved"), TerminalHandedOver("moves"), TerminalMoved("moved")]
    await world.connector.connect(uuid4(), "alpha", CREDENTIALS)
    assert len(world.proofs) == 4
    # Where it is to be tried is asked anew each time: the place may have moved meanwhile.
    assert world.told.count(("placed", "t-1")) == 4
    monkeypatch.setattr(routing, "PATIENCE_S", 0)
    world.failures = [TerminalMoved("moved")] * 1000
    with pytest.raises(TerminalMoved):
        await world.connector.connect(uuid4(), "alpha", CREDENTIALS)
    assert world.failures, "patience ends"


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
    assert limited.value.retry_after_s == 3.5
    assert len(world.proofs) == 5
    await world.connector.connect(uuid4(), "alpha", CREDENTIALS)


async def test_a_deletion_ends_everything(world: World) -> None:
    await world.connector.delete(known("alpha"), "edge", "request")
    assert world.told[0] == ("deleted", "account.delete of alpha by edge")
    assert erased(world) == ERASED


async def test_a_deletion_is_completed_when_the_state_store_is_back(world: World) -> None:
    world.away = True
    await world.connector.delete(known("alpha"), "edge", "request")
    async with asyncio.timeout(5):
        while world.told.count(("sought", "alpha")) < 3:
            await asyncio.sleep(0)
    assert not world.exists
    assert erased(world) == []
    world.away = False
    await world.background.aclose()
    assert erased(world) == ERASED


async def test_an_account_that_is_connected_anew_is_not_erased_late(world: World) -> None:
    world.away = True
    await world.connector.delete(known("alpha"), "edge", "request")
    world.exists, world.away = True, False
    await world.background.aclose()
    assert erased(world) == []

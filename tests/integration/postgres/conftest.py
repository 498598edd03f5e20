import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from local_stack.embedded import RoleDsns
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.secret import Secret
from mt5kit.state.postgres import (
    AccountRow,
    AccountStore,
    Database,
    OpenSocket,
    SubscriptionStore,
    WorkerStore,
)
from mt5kit.vault import AccountBinding, KeyRing, Sealed, Vault

NUMBERS = itertools.count(1)


@pytest.fixture
async def app_database(postgres: RoleDsns) -> AsyncIterator[Database]:
    database = await Database.open(postgres.app, application_name="test-app")
    yield database
    await database.aclose()


@pytest.fixture
async def worker_database(postgres: RoleDsns) -> AsyncIterator[Database]:
    database = await Database.open(postgres.worker, application_name="test-worker")
    yield database
    await database.aclose()


@pytest.fixture
def account_store(app_database: Database) -> AccountStore:
    return AccountStore(app_database)


@pytest.fixture
def worker_store(worker_database: Database) -> WorkerStore:
    return WorkerStore(worker_database)


@pytest.fixture
def subscription_store(worker_database: Database) -> SubscriptionStore:
    return SubscriptionStore(worker_database)


@pytest.fixture
def subscribe(subscription_store: SubscriptionStore) -> Callable[[str], Awaitable[UUID]]:
    """Records an open socket of the replica "ws-1" on an account; the socket's name."""

    async def one(account_id: str) -> UUID:
        socket = uuid4()
        await subscription_store.record(account_id, "ws-1", [OpenSocket(socket, 0.0)])
        return socket

    return one


@pytest.fixture(scope="session")
def vault() -> Vault:
    return Vault(KeyRing.generate("test"))


@pytest.fixture
def sealing(vault: Vault) -> Callable[[str], Callable[[AccountBinding], Sealed]]:
    """From a password, what `save_login` seals with."""
    return lambda password: lambda binding: vault.seal(Secret(password), binding)


@pytest.fixture
def make_account(
    account_store: AccountStore, sealing: Callable[[str], Callable[[AccountBinding], Sealed]]
) -> Callable[..., Awaitable[AccountRow]]:
    """Stores an account that no other test has, with the password "first"."""

    async def make(user_id: UUID | None = None) -> AccountRow:
        number = next(NUMBERS)
        return await account_store.save_login(
            user_id or uuid4(),
            f"acc-{number}",
            AccountIdentity(5_000_000_000 + number, "Demo-Server"),
            sealing("first"),
        )

    return make

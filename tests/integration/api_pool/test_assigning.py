"""Which stream terminal an account is given, on a real Redis."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from api_pool import streams
from api_pool.capacity import Capacity
from api_pool.directory import KnownAccount
from api_pool.places import Board
from api_pool.streams import StreamAssigner, StreamBoard
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.instants import now_ms
from mt5kit.errors import Conflict, LoginRefused, ServiceOverloaded
from mt5kit.state.postgres import AccountRow
from mt5kit.state.redis import (
    BoardStore,
    Keys,
    LeaseStore,
    PlacementStore,
    Redis,
    StateUnavailable,
    StreamPlacementStore,
    TerminalEntry,
    TicketStore,
    open_redis,
)

TERMINALS = ("s-1", "s-2", "s-3", "s-4")


def known(account_id: str, state: AccountState = AccountState.CONNECTED) -> KnownAccount:
    return KnownAccount(
        AccountRow(
            id=1,
            uuid=uuid4(),
            account_id=account_id,
            user_id=uuid4(),
            identity=AccountIdentity(1, "S"),
            state=state,
            state_since_ms=0,
            last_error=None,
            is_active=True,
            last_login_ms=None,
            last_poll_ms=None,
        )
    )


class Pool:
    def __init__(self, redis: Redis) -> None:
        keys = Keys("mt5:test")
        self.leases = LeaseStore(redis, keys)
        self.board = BoardStore(redis, keys, "stream")
        self.placements = StreamPlacementStore(redis, keys)
        self.tickets = TicketStore(redis, keys)
        stream_board = StreamBoard(TERMINALS, self.board, self.leases)
        self.assigner = StreamAssigner(
            stream_board, self.placements, self.tickets, "wss://stream.example/"
        )
        self.capacity = Capacity(
            board=Board((), 20),
            placements=PlacementStore(redis, keys),
            streams=self.placements,
            leases=self.leases,
            stream_board=stream_board,
        )

    async def lease(self, *terminals: str) -> None:
        for terminal in terminals:
            assert await self.leases.acquire(terminal, f"ws-of-{terminal}")

    async def tell(self, *, draining: bool = False, **up: bool) -> None:
        """What their owners say: whether `t1` (s-1) and so on are up, and drain."""
        await self.board.publish(
            {
                f"s-{number[1:]}": TerminalEntry(
                    "ws-1", is_up, now_ms(), None, 0, draining=draining
                )
                for number, is_up in up.items()
            }
        )

    async def assign(self, account_id: str) -> str | None:
        await self.assigner.assign(uuid4(), known(account_id))
        return await self.placements.where(account_id)

    async def room(self) -> int:
        return (await self.capacity.measure()).ws_max_accounts


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def pool(redis: Redis) -> Pool:
    return Pool(redis)


async def test_terminals_that_are_up_come_first_then_leased_ones_and_then_it_is_full(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was said a moment ago was said long ago.
    monkeypatch.setattr(streams, "HANDED_OVER_MS", 0)
    await pool.lease("s-2", "s-3")
    await pool.tell(t1=True, t2=False, t3=True, t4=False)
    assert await pool.room() == 1
    assert await pool.assign("one") == "s-3"
    assert await pool.assign("two") == "s-2"
    # s-1 was up, says an owner that is gone; nobody leases it, or s-4.
    with pytest.raises(ServiceOverloaded) as full:
        await pool.assign("three")
    assert full.value.retry_after_s
    assert not isinstance(full.value, StateUnavailable)
    assert await pool.placements.where("three") is None


async def test_before_any_owner_has_spoken_every_terminal_will_do_leased_ones_first(
    pool: Pool,
) -> None:
    await pool.lease("s-3")
    assert await pool.room() == 4
    given = [await pool.assign(f"a-{number}") for number in range(4)]
    assert given == ["s-3", "s-1", "s-2", "s-4"]
    with pytest.raises(ServiceOverloaded):
        await pool.assign("a-5")


async def test_an_account_keeps_its_terminal_while_that_is_up(pool: Pool) -> None:
    await pool.lease(*TERMINALS)
    await pool.tell(t4=True)
    assert await pool.assign("one") == "s-4"
    await pool.tell(t1=True, t2=True, t4=True)
    assert await pool.assign("one") == "s-4"
    await pool.tell(t4=False)
    assert await pool.assign("one") == "s-1"
    assert await pool.assign("two") == "s-2"
    # And the one it left is another's, when there is no better.
    await pool.tell(t1=True, t2=True, t3=False)
    assert {await pool.assign("three"), await pool.assign("four")} == {"s-3", "s-4"}


async def test_an_account_whose_terminal_is_down_stays_while_there_is_no_other(pool: Pool) -> None:
    await pool.lease(*TERMINALS)
    await pool.tell(t3=True)
    assert await pool.assign("one") == "s-3"
    await pool.tell(t3=False)
    assert await pool.assign("one") == "s-3"


async def test_a_terminal_that_changes_hands_is_not_left(pool: Pool) -> None:
    await pool.lease("s-1", "s-2")
    await pool.tell(t1=True, t2=True)
    assert await pool.assign("one") == "s-1"
    lease = await pool.leases.holder("s-1")
    assert lease is not None
    assert await pool.leases.release(lease)
    assert await pool.assign("one") == "s-1"
    # Somebody else is given what is leased.
    assert await pool.assign("two") == "s-2"


async def test_a_terminal_that_drains_is_given_to_nobody_and_left_by_its_owners_word_only(
    pool: Pool,
) -> None:
    await pool.lease("s-1", "s-2", "s-3")
    await pool.tell(t1=True)
    assert await pool.assign("one") == "s-1"
    await pool.tell(t1=True, t2=True, draining=True)
    assert await pool.room() == 0
    # s-3 has not been heard of yet, and may be up soon.
    assert await pool.assign("two") == "s-3"
    with pytest.raises(ServiceOverloaded):
        await pool.assign("three")
    assert await pool.assign("one") == "s-1", "there is no other"
    await pool.placements.free("two")
    await pool.tell(t3=True)
    # Its owner may be polling it: without its word the line could not be gone on with.
    assert await pool.assign("one") == "s-1"
    assert await pool.placements.reserve("one", ["s-3"], 60) == "s-3"
    assert await pool.assign("one") == "s-3"


async def test_a_terminal_that_drains_and_has_no_owner_is_left(pool: Pool) -> None:
    await pool.lease("s-1", "s-2")
    await pool.tell(t1=True)
    assert await pool.assign("one") == "s-1"
    await pool.tell(t1=True, draining=True)
    await pool.tell(t2=True)
    lease = await pool.leases.holder("s-1")
    assert lease is not None
    assert await pool.leases.release(lease)
    assert await pool.assign("one") == "s-2"


async def test_the_answer_names_the_owner_and_carries_a_ticket_for_that_user(pool: Pool) -> None:
    await pool.lease("s-1")
    await pool.tell(t1=True)
    user = uuid4()
    answer = await pool.assigner.assign(user, known("one"))
    assert answer.instance_id == "ws-of-s-1"
    assert answer.websocket_url == f"wss://stream.example/ws/account/one?ticket={answer.ticket}"
    grant = (await pool.tickets.redeem(answer.ticket)).grant
    assert (grant.account_id, grant.user_id, grant.scope) == ("one", str(user), "account")
    # The hour of its connection begins when it is redeemed.
    assert grant.until_ms == 0


@pytest.mark.parametrize(
    ("state", "refusal"),
    [(AccountState.DISCONNECTED, Conflict), (AccountState.LOGIN_FAILED, LoginRefused)],
)
async def test_an_account_that_cannot_be_streamed_takes_no_terminal(
    pool: Pool, state: AccountState, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        await pool.assigner.assign(uuid4(), known("one", state))
    assert await pool.placements.taken(TERMINALS) == 0

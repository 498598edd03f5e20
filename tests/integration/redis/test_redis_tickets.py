import asyncio

import pytest
from redis.asyncio import Redis

from local_stack.embedded import EmbeddedRedis
from mt5kit.errors import Unauthenticated
from mt5kit.state.redis import (
    Control,
    ControlChannel,
    Keys,
    PlacementStore,
    Redeemed,
    RedisFault,
    StateUnavailable,
    TicketGrant,
    TicketStore,
    open_redis,
)


@pytest.fixture
def tickets(redis: Redis, keys: Keys) -> TicketStore:
    return TicketStore(redis, keys)


async def test_a_ticket_opens_once(tickets: TicketStore) -> None:
    ticket = await tickets.issue("acc", "user")
    assert (await tickets.redeem(ticket)).grant == TicketGrant("acc", "user")
    with pytest.raises(Unauthenticated):
        await tickets.redeem(ticket)


async def test_of_many_at_once_one_gets_in(tickets: TicketStore) -> None:
    ticket = await tickets.issue("acc", "user")
    answers = await asyncio.gather(
        *(tickets.redeem(ticket) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, Redeemed) for answer in answers) == 1


async def test_redis_never_sees_a_ticket(tickets: TicketStore, redis: Redis, admin: Redis) -> None:
    ticket = await tickets.issue("", "user", scope="quotes", tier="PRO")
    [key] = await admin.keys("*")
    assert ticket.encode() not in key
    assert ticket.encode() not in (await redis.dump(key) or b"")
    assert 0 < await redis.pttl(key) <= 30_000
    assert (await tickets.redeem(ticket)).grant == TicketGrant("", "user", "quotes", "PRO")


@pytest.mark.parametrize("ticket", ["", "nonsense", "x" * 100_000, "\0", "\ud800", "ü" * 40])
async def test_nonsense_is_no_ticket(tickets: TicketStore, ticket: str) -> None:
    with pytest.raises(Unauthenticated):
        await tickets.redeem(ticket)


async def test_a_ticket_can_be_kept_alive_and_ended(
    tickets: TicketStore, redis: Redis, admin: Redis
) -> None:
    ticket = await tickets.issue("acc", "user", ttl_s=5)
    assert await tickets.renew(ticket, 120)
    [key] = await admin.keys("*")
    assert await redis.pttl(key) > 5_000
    await tickets.discard(ticket)
    assert not await tickets.renew(ticket, 120)
    with pytest.raises(Unauthenticated):
        await tickets.redeem(ticket)


async def test_redis_away_is_said_in_our_words(
    redis_server: EmbeddedRedis, redis_url: str, keys: Keys
) -> None:
    client = open_redis(redis_url)
    try:
        await asyncio.to_thread(redis_server.stop)
        for call in (
            TicketStore(client, keys).issue("acc", "user"),
            TicketStore(client, keys).redeem("ticket"),
            PlacementStore(client, keys).place("1", ["T1"]),
        ):
            with pytest.raises(StateUnavailable) as away:
                await call
            assert away.value.retry_after_s
        await asyncio.to_thread(redis_server.start)
        assert await TicketStore(client, keys).issue("acc", "user")
    finally:
        await asyncio.to_thread(redis_server.start)
        await client.aclose()


async def test_a_mistake_of_ours_is_an_internal_fault(redis: Redis, keys: Keys) -> None:
    await redis.set(keys.placements("api"), "not a hash")
    with pytest.raises(RedisFault):
        await PlacementStore(redis, keys).where("1")


async def test_orders_reach_listeners_even_after_a_restart(
    redis_server: EmbeddedRedis, redis_url: str, keys: Keys
) -> None:
    client = open_redis(redis_url)
    channel = ControlChannel(client, keys)
    heard: asyncio.Queue[tuple[str, Control]] = asyncio.Queue()

    async def listen() -> None:
        async for order in channel.listen():
            heard.put_nowait(order)

    async def send(account_id: str, control: Control) -> None:
        async with asyncio.timeout(15):
            # Nothing tells when the listener has subscribed.
            while not await channel.publish(account_id, control):
                await asyncio.sleep(0.02)

    listener = asyncio.create_task(listen())
    try:
        await send("a-1", Control.DISCONNECT)
        assert await asyncio.wait_for(heard.get(), 5) == ("a-1", Control.DISCONNECT)
        await asyncio.to_thread(redis_server.stop)
        await asyncio.to_thread(redis_server.start)
        await send("b_2", Control.CREDENTIALS)
        assert await asyncio.wait_for(heard.get(), 5) == ("b_2", Control.CREDENTIALS)
    finally:
        listener.cancel()
        await asyncio.wait([listener])
        await client.aclose()
        await asyncio.to_thread(redis_server.start)


async def test_a_ticket_that_opened_nothing_can_be_put_back(
    tickets: TicketStore, redis: Redis, admin: Redis
) -> None:
    ticket = await tickets.issue("acc", "user", ttl_s=5)
    redeemed = await tickets.redeem(ticket)
    assert ticket not in repr(redeemed)
    await tickets.put_back(redeemed)
    [key] = await admin.keys("*")
    assert 0 < await redis.pttl(key) <= 5_000
    assert (await tickets.redeem(ticket)).grant == redeemed.grant
    with pytest.raises(Unauthenticated):
        await tickets.redeem(ticket)


async def test_a_ticket_says_when_its_authority_ends(
    tickets: TicketStore, redis: Redis, admin: Redis
) -> None:
    ticket = await tickets.issue("acc", "user", until_ms=1_800_000_000_000)
    redeemed = await tickets.redeem(ticket)
    assert redeemed.grant == TicketGrant("acc", "user", until_ms=1_800_000_000_000)
    await tickets.put_back(redeemed)
    [key] = await admin.keys("*")
    # One issued by a release that did not know of it.
    await redis.set(key, b'{"account_id":"acc","user_id":"user","scope":"account","tier":"FREE"}')
    assert (await tickets.redeem(ticket)).grant.until_ms == 0

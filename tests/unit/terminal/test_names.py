"""Which terminals have an address."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from tests.named_servers import Dns

from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.names import FAILURES, Names

GUARD = AddressGuard(["10.77.4.0/23"])
INSIDE, OUTSIDE = "10.77.4.9", "203.0.113.9"


def addresses(*hosts: str) -> list[TerminalAddress]:
    return [TerminalAddress(f"{host}-{n}", host, 8000 + n) for host in hosts for n in (1, 2)]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    dns = Dns()
    dns.rule(monkeypatch)
    return dns


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def looking(*hosts: str, changed: Callable[[], None] = lambda: None) -> AsyncIterator[Names]:
    names = Names(addresses(*hosts), GUARD, pause_s=0.001)
    names.start(changed)
    yield names
    await names.aclose()


async def test_a_name_is_there_when_it_resolves_inside(dns: Dns) -> None:
    dns.names = {"here": [INSIDE], "wild": [OUTSIDE]}
    async with looking("here", "wild", "nobody") as names:
        await until(lambda: names.there("here-1"))
        await until(lambda: dns.asked.count("wild") > FAILURES < dns.asked.count("nobody"))
        assert names.there("here-2")
        assert not any(map(names.there, ("wild-1", "nobody-1")))


async def test_names_come_and_go_and_somebody_is_told(dns: Dns) -> None:
    changes: list[bool] = []
    names: Names

    def changed() -> None:
        changes.append(names.there("slot-1"))

    async with looking("slot", changed=changed) as names:
        await until(lambda: len(dns.asked) > FAILURES)
        assert not changes
        dns.names["slot"] = [INSIDE]
        await until(lambda: changes == [True])
        # Now somebody else answers for it.
        dns.names["slot"] = [OUTSIDE]
        await until(lambda: changes == [True, False])


async def test_one_answer_that_fails_to_come_is_not_believed(dns: Dns) -> None:
    changes: list[str] = []
    dns.names["slot"] = [INSIDE]
    async with looking("slot", changed=lambda: changes.append("told")) as names:
        await until(lambda: names.there("slot-1"))
        for _ in range(5):
            dns.failures = FAILURES - 1
            await until(lambda: not dns.failures)
            asked = len(dns.asked)
            await until(lambda asked=asked: len(dns.asked) > asked)  # type: ignore[misc]
            assert names.there("slot-1")
    assert changes == ["told"]


async def test_addresses_are_there_and_are_not_looked_up(dns: Dns) -> None:
    async with looking(INSIDE, "::1", "slot") as names:
        await until(lambda: "slot" in dns.asked)
        assert names.there(f"{INSIDE}-1")
        assert names.there("::1-2")
    assert set(dns.asked) == {"slot"}


async def test_a_question_that_is_not_answered_holds_up_no_other_and_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host == "slow":
            asyncio.run_coroutine_threadsafe(answered.wait(), loop).result(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (INSIDE, 8001))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    async with looking("slow", "slot") as names:
        await until(lambda: names.there("slot-1"))
        assert not names.there("slow-1")
    answered.set()

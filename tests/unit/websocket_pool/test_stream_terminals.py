"""Links that begin and end with leases; against hand-written connections."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import CollectorRegistry

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.errors import TerminalMoved, TerminalUnavailable
from mt5kit.state.redis import Lease
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.link import TerminalLink
from websocket_pool.terminals import LinkedTerminals

ME = AccountIdentity(1, "S")
NAMES = tuple(f"s-{number}" for number in range(1, 6))


class Held:
    """A connection whose poll stays in the terminal until it is cut; one that is loth hangs on."""

    address = "127.0.0.1"

    def __init__(self, address: TerminalAddress, _guard: AddressGuard) -> None:
        self.terminal_id = address.terminal_id
        self.loth = False
        self.cut = False
        self._poll: asyncio.Future[object] | None = None

    @property
    def polling(self) -> bool:
        return self._poll is not None and not self.cut

    def open(self, limit_s: float) -> None:
        pass

    async def attach(self, lost: Callable[[], None]) -> None:
        pass

    def ask(
        self, op: str, token: int, args: tuple[object, ...], timeout_s: float
    ) -> asyncio.Future[object]:
        reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if op == "open_poll":
            reply.set_result(b'{"answer": {"generation": 1}}')
        else:
            self._poll = reply
        return reply

    def stale(self) -> bool:
        return self.cut

    def abort(self) -> None:
        self.cut = True
        if not self.loth:
            self.let_go()

    def let_go(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_exception(TerminalUnavailable("cut", retry_after_s=1))


class World:
    """Five terminals, of which all connections are known."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = TerminalMetrics(self.registry)
        self.doors: list[Held] = []
        addresses = [TerminalAddress(name, "127.0.0.1", 1) for name in NAMES]
        self.terminals = LinkedTerminals(addresses, self.link, self.metrics)

    def link(self, address: TerminalAddress) -> TerminalLink:
        return TerminalLink(address, AddressGuard(["127.0.0.0/8"]), self.metrics, self.make)

    def make(self, address: TerminalAddress, guard: AddressGuard) -> Held:
        self.doors.append(Held(address, guard))
        return self.doors[-1]

    def gauge(self, terminal_id: str) -> float | None:
        return self.registry.get_sample_value("mt5_terminal_up", {"terminal": terminal_id})

    async def gain(self, terminal_id: str) -> None:
        self.terminals.gained(Lease(terminal_id, "ws-1", 1))
        await until(lambda: self.gauge(terminal_id) == 1)

    async def poll(self, terminal_id: str) -> "asyncio.Task[object]":
        """A poll that is in the terminal."""
        poll: asyncio.Task[object] = asyncio.create_task(
            self.terminals.get(terminal_id).wait_changes(1, ME, "")
        )
        await until(lambda: any(each.polling for each in self.doors))
        return poll


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.terminals.aclose()
    await until(lambda: not threads())


def threads() -> set[str]:
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if name.startswith("mt5-s-")}


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_only_a_leased_terminal_may_be_used(world: World) -> None:
    terminals = world.terminals
    assert terminals.ids == NAMES
    with pytest.raises(TerminalMoved):
        terminals.get("s-1")
    assert not terminals.up("s-1")
    await world.gain("s-1")
    assert terminals.get("s-1").terminal_id == "s-1"
    assert terminals.up("s-1")
    terminals.lost("s-1")
    with pytest.raises(TerminalMoved):
        terminals.get("s-1")
    assert not terminals.up("s-1")
    with pytest.raises(TerminalMoved):
        terminals.get("no-such-terminal")


async def test_a_lost_terminal_has_no_connection_and_a_leased_one_two(world: World) -> None:
    polls = []
    for count, terminal_id in enumerate(NAMES, 1):
        await world.gain(terminal_id)
        polls.append(await world.poll(terminal_id))
        assert len(world.doors) == 2 * count
        assert len([door for door in world.doors if not door.cut]) == 2
        # Connected, it takes no thread.
        await until(lambda: not threads())
        world.terminals.lost(terminal_id)
        await until(lambda: all(door.cut for door in world.doors))
    for poll in polls:
        with pytest.raises(TerminalUnavailable):
            await poll


async def test_losing_a_terminal_cuts_its_poll_and_forgets_that_it_was_up(world: World) -> None:
    await world.gain("s-1")
    poll = await world.poll("s-1")
    world.terminals.lost("s-1")
    with pytest.raises(TerminalUnavailable):
        await poll
    await until(lambda: world.gauge("s-1") is None)


async def test_one_that_is_gained_again_while_it_hangs_up_has_a_new_link(world: World) -> None:
    await world.gain("s-1")
    before = world.terminals.get("s-1")
    poll = await world.poll("s-1")
    hanging_on = list(world.doors)
    for door in hanging_on:
        door.loth = True
    world.terminals.lost("s-1")
    await world.gain("s-1")
    await until(lambda: world.terminals.up("s-1"))
    assert world.terminals.get("s-1") is not before
    for door in hanging_on:
        door.let_go()
    with pytest.raises(TerminalUnavailable):
        await poll
    await until(lambda: "hang-up-s-1" not in tasks())
    assert [door.cut for door in world.doors] == [True, True, False]
    assert world.gauge("s-1") == 1


async def test_a_poll_that_begins_after_the_loss_starts_nothing(world: World) -> None:
    await world.gain("s-1")
    terminal = world.terminals.get("s-1")
    world.terminals.lost("s-1")
    await until(lambda: "hang-up-s-1" not in tasks())
    with pytest.raises(TerminalUnavailable):
        await terminal.wait_changes(1, ME, "")
    assert not {name for name in tasks() if "keeper" in name}
    assert not threads()


async def test_losing_twice_or_what_was_never_held_changes_nothing(world: World) -> None:
    world.terminals.lost("s-1")
    await world.gain("s-1")
    world.terminals.gained(Lease("s-1", "ws-1", 2))
    world.terminals.lost("s-1")
    world.terminals.lost("s-1")
    await until(lambda: "hang-up-s-1" not in tasks())
    assert len(world.doors) == 1

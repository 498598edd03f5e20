"""Who gives up when: MetaTrader before the agent's caller, the agent before the connection."""

import ast
import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.unit.terminal.peer import Peer

import mt5kit.terminal
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryQuery
from mt5kit.errors import TerminalTimeout, TerminalUnavailable
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal.address import AddressGuard, TerminalAddress
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.link import TerminalLink

ME = AccountIdentity(1, "S")
LOGIN = Credentials(ME, Secret("pw"))
PAGE = HistoryQuery(0, 9, "", None, 5)
ADDRESS = TerminalAddress("t-1", "127.0.0.1", 9)
GUARD = AddressGuard(["127.0.0.0/8"])
AGENT = Path(mt5kit.terminal.__file__).parent / "agent.py"
OPENED = b'{"answer": {"generation": 1}}'

Seen = list[tuple[str, tuple[object, ...], float]]
Call = Callable[[TerminalLink, float], Awaitable[object]]

CALLS: dict[str, Call] = {
    "sign_in": lambda link, s: link.sign_in(1, LOGIN, deadline_s=s),
    "snapshot": lambda link, s: link.snapshot(1, ME, deadline_s=s),
    "probe": lambda link, s: link.probe(1, deadline_s=s),
    "history_size": lambda link, s: link.history_size(1, ME, deadline_s=s),
    "deals": lambda link, s: link.deals(1, ME, PAGE, deadline_s=s),
    "orders": lambda link, s: link.orders(1, ME, PAGE, deadline_s=s),
    "wait_changes": lambda link, s: link.wait_changes(1, ME, "", timeout_s=s),
}
# Where an operation's own timeout is among its arguments, and in how many of it a second has.
OWN_TIMEOUT = {"sign_in": (3, 1000), "probe": (0, 1000), "wait_changes": (3, 1)}


class SilentDoor:
    """Opens a poll; notes everything else and never answers."""

    address = "127.0.0.1"

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def open(self, limit_s: float) -> None:
        pass

    async def attach(self, lost: Callable[[], None]) -> None:
        pass

    def ask(
        self, op: str, token: int, args: tuple[object, ...], timeout_s: float
    ) -> asyncio.Future[object]:
        self.seen.append((op, args, timeout_s))
        reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if op == "open_poll":
            reply.set_result(OPENED)
        else:
            reply.set_exception(TerminalTimeout("silent"))
        return reply

    def stale(self) -> bool:
        return False

    def abort(self) -> None:
        pass


@pytest.mark.parametrize("deadline_s", [0.4, 2.0, 20.0])
async def test_every_call_gives_metatrader_less_than_it_waits_itself(deadline_s: float) -> None:
    seen: Seen = []
    link = TerminalLink(
        ADDRESS, GUARD, TerminalMetrics(CollectorRegistry()), lambda *_: SilentDoor(seen)
    )
    for call in CALLS.values():
        with pytest.raises(TerminalTimeout):
            await call(link, deadline_s)
    await link.aclose()
    for op, args, waited_s in seen:
        if op not in {"open_poll", "wait_changes"}:
            assert waited_s <= deadline_s, op
        if op in OWN_TIMEOUT:
            place, in_a_second = OWN_TIMEOUT[op]
            given = args[place]
            assert isinstance(given, int | float)
            # What waiting for the turn takes of the deadline, the agent takes of this.
            limit_s = waited_s if op == "wait_changes" else deadline_s
            assert 0 < given / in_a_second < limit_s, op
    assert {op for op, _, _ in seen} == operations()


def operations() -> set[str]:
    """What the agent can be asked, so that a new operation is looked at here too."""
    for node in ast.parse(AGENT.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LOCKED":
            return {*ast.literal_eval(node.value), "wait_changes"}
    raise AssertionError("the agent has no list of operations")


def test_every_call_of_the_link_is_among_these() -> None:
    methods = inspect.getmembers(TerminalLink, inspect.iscoroutinefunction)
    public = {name for name, _ in methods if not name.startswith("_")}
    assert public - {"aclose"} == set(CALLS)


@pytest.mark.parametrize("timeout_s", [0.1, 2.0, 20.0])
async def test_the_agent_gives_up_before_the_connection(
    timeout_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Peer() as peer:
        connection = await peer.connect()
        loop = asyncio.get_running_loop()
        delays: list[float] = []
        original = loop.call_later

        def call_later(
            delay: float, callback: Callable[..., object], *args: object
        ) -> asyncio.TimerHandle:
            delays.append(delay)
            return original(delay, callback, *args)

        monkeypatch.setattr(loop, "call_later", call_later)
        reply = connection.ask("snapshot", 1, (), timeout_s)
        _, (_, _, wait_s) = await peer.asked()
        assert isinstance(wait_s, float)
        assert wait_s < timeout_s
        assert delays[0] == timeout_s
        connection.abort()
        with pytest.raises(TerminalUnavailable):
            await reply

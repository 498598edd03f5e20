"""What supervisors say of our terminals, and what becomes of it when they say nothing."""

from collections.abc import Callable

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from mt5kit.secret import Secret
from mt5kit.terminal import supervisor
from mt5kit.terminal.supervisor import Peer, Supervisors

ONE, TWO, OTHER = Peer("10.0.0.1", 8001), Peer("10.0.0.1", 8002), Peer("10.0.0.2", 8001)

Answer = Callable[[httpx.Request], httpx.Response]


def saying(**states: str) -> httpx.Response:
    """What a supervisor answers: the state of its terminals by their ports, `p8001` and so on."""
    terminals = [
        {"n": n, "port": int(port[1:]), "state": state, "memory_bytes": 1}
        for n, (port, state) in enumerate(states.items(), 1)
    ]
    return httpx.Response(200, json={"success": True, "terminals": terminals})


class World:
    """Supervisors by address; each says what it is told to."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.answers: dict[str, Answer] = {}
        transport = httpx.MockTransport(self._answer)
        self.supervisors = Supervisors(8100, Secret("the-key"), transport)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers[request.url.host](request)

    def says(self, address: str, **states: str) -> None:
        self.answers[address] = lambda _: saying(**states)

    def draining(self, *terminals: str) -> list[bool | None]:
        return [self.supervisors.draining(one) for one in terminals]


@pytest.fixture
def world() -> World:
    return World()


async def test_one_question_tells_of_all_terminals_of_a_supervisor(world: World) -> None:
    world.says("10.0.0.1", p8001="running", p8002="draining", p8003="draining")
    world.says("10.0.0.2", p8001="draining")
    await world.supervisors.look({"a": ONE, "b": TWO, "c": OTHER})
    assert world.draining("a", "b", "c", "d") == [False, True, True, None]
    assert sorted(str(request.url) for request in world.asked) == [
        "http://10.0.0.1:8100/terminals",
        "http://10.0.0.2:8100/terminals",
    ]
    assert {request.headers["X-Supervisor-Key"] for request in world.asked} == {"the-key"}


async def test_what_is_said_last_is_true(world: World) -> None:
    for state, drains in (("running", False), ("draining", True), ("running", False)):
        world.says("10.0.0.1", p8001=state)
        await world.supervisors.look({"a": ONE})
        assert world.draining("a") == [drains]


def hang_up(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize(
    "answer",
    [
        hang_up,
        lambda _: httpx.Response(401, json={"success": False}),
        lambda _: httpx.Response(302, headers={"Location": "http://elsewhere/"}),
        lambda _: httpx.Response(200, text="no JSON"),
        lambda _: httpx.Response(200, json={"terminals": [{"port": "8001"}]}),
        lambda _: httpx.Response(200, content=b" " * (supervisor.LARGEST_ANSWER + 1)),
        lambda _: saying(p9="running"),
    ],
)
async def test_what_is_not_answered_changes_nothing(world: World, answer: Answer) -> None:
    for state, drains in (("draining", True), ("running", False)):
        world.says("10.0.0.1", p8001=state)
        world.says("10.0.0.2", p8001="draining")
        await world.supervisors.look({"a": ONE, "b": OTHER})
        world.answers["10.0.0.1"] = answer
        await world.supervisors.look({"a": ONE, "b": OTHER})
        assert world.draining("a", "b") == [drains, True]


async def test_silence_is_logged_once(world: World) -> None:
    world.answers["10.0.0.1"] = hang_up
    with capture_logs() as logs:
        for _ in range(3):
            await world.supervisors.look({"a": ONE})
        world.says("10.0.0.1", p8001="running")
        for _ in range(2):
            await world.supervisors.look({"a": ONE})
        world.answers["10.0.0.1"] = hang_up
        await world.supervisors.look({"a": ONE})
    silent = ["supervisor_silent", "supervisor_answers", "supervisor_silent"]
    assert [entry["event"] for entry in logs] == silent
    assert "the-key" not in str(logs)


async def test_a_terminal_that_is_connected_to_elsewhere_is_another(world: World) -> None:
    world.says("10.0.0.1", p8001="draining")
    await world.supervisors.look({"a": ONE})
    # Its container goes: what was said of it stays true until a new one is connected to.
    await world.supervisors.look({"a": None})
    assert world.draining("a") == [True]
    world.answers["10.0.0.2"] = hang_up
    await world.supervisors.look({"a": OTHER})
    assert world.draining("a") == [None]
    world.says("10.0.0.2", p8001="running")
    await world.supervisors.look({"a": OTHER})
    assert world.draining("a") == [False]


async def test_a_terminal_that_is_ours_no_more_is_forgotten(world: World) -> None:
    world.says("10.0.0.1", p8001="draining")
    await world.supervisors.look({"a": ONE})
    await world.supervisors.look({})
    assert world.draining("a") == [None]


async def test_where_there_are_no_supervisors_nobody_is_asked() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise AssertionError

    supervisors = Supervisors(0, None, httpx.MockTransport(answer))
    await supervisors.look({"a": ONE})
    assert supervisors.draining("a") is None


def test_an_answer_with_more_in_it_is_understood() -> None:
    told = {"port": 1, "state": "running", "news": {"of": "later"}}
    encoded = msgspec.json.encode({"terminals": [told], "draining": True})
    [terminal] = msgspec.json.decode(encoded, type=supervisor._Terminals).terminals
    assert (terminal.port, terminal.state) == (1, "running")

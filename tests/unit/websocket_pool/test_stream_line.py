"""The stream under a fake clock: numbering, spacing, and a client that rebuilds the state."""

import heapq
import itertools
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.snapshots import Snapshot, TerminalStatus
from mt5kit.telemetry.stream_metrics import StreamMetrics
from mt5kit.testing.fake_terminal import make_account, make_order, make_position
from websocket_pool import line as line_module
from websocket_pool.channel import Channel
from websocket_pool.close_codes import CloseCode
from websocket_pool.diff import Changes, Status, View
from websocket_pool.messages import Kind, Message
from websocket_pool.pacer import NO_LULL_S, SPACING_S
from websocket_pool.source import StreamOver
from websocket_pool.stream import GRACE_S, Stream

ME = AccountIdentity(7, "Demo")
OTHER = AccountIdentity(8, "Demo")
NUMBERED = {kind.value for kind in Kind}


class FakeTimer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0
        self._alarms: list[tuple[float, int, FakeTimer, Callable[[], None]]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> FakeTimer:
        assert delay >= 0
        timer = FakeTimer()
        self._count += 1
        heapq.heappush(self._alarms, (self.now + delay, self._count, timer, callback))
        return timer

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._alarms and self._alarms[0][0] <= until:
            self.now, _, timer, callback = heapq.heappop(self._alarms)
            if not timer.cancelled:
                callback()
        self.now = until


class Client:
    """What a reader of contracts §4 makes of the messages."""

    def __init__(self, loop: FakeLoop) -> None:
        self.loop = loop
        self.seq: int | None = None
        self.state: dict[str, Any] = {}
        self.types: list[str] = []
        self.times: list[float] = []
        self.ended: CloseCode | None = None

    def deliver(self, message: Message) -> bool:
        body = json.loads(message.text)
        data = body["data"]
        if message.type == "snapshot":
            self.state = {key: data[key] for key in ("account", "positions", "orders", "status")}
        else:
            assert message.type in NUMBERED
            assert self.seq is None or body["seq"] == self.seq + 1
            self.times.append(self.loop.now)
            if message.type == "account_update":
                assert data["account"]
                self.state["account"] |= data["account"]
            elif message.type == "position_update":
                self._check_rows(self.state.get("positions", []), data)
                self.state["positions"] = data["positions"]
            elif message.type == "order_update":
                self.state["orders"] = data["orders"]
            else:
                self.state["status"] = data
        self.types.append(message.type)
        self.seq = body["seq"]
        return True

    def end(self, code: CloseCode, reason: str) -> None:
        assert reason
        self.ended = code

    @staticmethod
    def _check_rows(before: list[Any], data: dict[str, Any]) -> None:
        had = {row["ticket"] for row in before}
        has = {row["ticket"] for row in data["positions"]}
        assert {row["ticket"] for row in data["opened"]} == has - had
        assert {row["ticket"] for row in data["closed"]} == had - has


def look(
    seen_ms: int = 0,
    *,
    equity: float = 1000.0,
    positions: dict[int, float] | None = None,
    orders: tuple[int, ...] = (),
    online: bool = True,
    identity: AccountIdentity = ME,
) -> Snapshot:
    account = msgspec.structs.replace(make_account(identity), equity=equity)
    held = tuple(make_position(ticket, profit) for ticket, profit in (positions or {}).items())
    return Snapshot(
        account,
        held,
        tuple(make_order(ticket) for ticket in orders),
        TerminalStatus(online, True),
        seen_ms,
    )


class Scene:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.channel = Channel(
            "acc", StreamMetrics(CollectorRegistry()), lambda: round(self.loop.now * 1000)
        )
        self.line = self.channel.line
        self.stream = Stream(self.channel, 5, self.loop)
        self.client = Client(self.loop)
        self.channel.attach(self.client)

    def expected(self) -> dict[str, Any]:
        newest = self.stream._newest
        parts = {
            "account": newest.account,
            "positions": newest.positions,
            "orders": newest.orders,
            "status": newest.status,
        }
        return json.loads(msgspec.json.encode(parts))  # type: ignore[no-any-return]


@pytest.fixture
def scene() -> Scene:
    return Scene()


looks = st.builds(
    look,
    seen_ms=st.integers(0, 10**12),
    equity=st.sampled_from([1000.0, 1001.0, 1002.0]),
    positions=st.dictionaries(st.integers(1, 4), st.sampled_from([0.0, 1.0, 2.0]), max_size=4),
    orders=st.lists(st.integers(1, 3), unique=True, max_size=3).map(tuple),
    online=st.booleans(),
)
trouble = st.just(Status(AccountState.TERMINAL_UNAVAILABLE, "away"))
steps = st.lists(st.tuples(st.floats(0, 0.3), looks | trouble), min_size=1, max_size=60)


@settings(max_examples=200)
@given(first=looks, story=steps, join_at=st.integers(0, 59))
def test_any_story_is_numbered_spaced_and_rebuilt(
    first: Snapshot, story: list[tuple[float, Snapshot | Status]], join_at: int
) -> None:
    scene = Scene()
    scene.stream.see(first)
    late = Client(scene.loop)
    for number, (pause, event) in enumerate(story):
        if number == join_at:
            snapshot = scene.channel.snapshot()
            assert snapshot is not None
            late.deliver(snapshot)
            scene.channel.attach(late)
        scene.loop.advance(pause)
        if isinstance(event, Status):
            scene.stream.trouble(event)
        else:
            scene.stream.see(event)
    scene.loop.advance(NO_LULL_S + 10 * SPACING_S)
    assert scene.client.state == scene.expected()
    assert scene.client.seq == scene.line.seq
    assert scene.client.types[0] == "snapshot"
    gaps = [b - a for a, b in zip(scene.client.times, scene.client.times[1:], strict=False)]
    assert all(gap >= SPACING_S - 1e-9 for gap in gaps)
    if late in scene.channel.watchers:
        assert late.state == scene.expected()
        # What was told before the join can be told again, and leads to the same place.
        replayed = scene.channel.replay(5, 0)
        assert replayed is not None
        assert [json.loads(one.text)["seq"] for one in replayed] == list(
            range(1, scene.line.seq + 1)
        )


whose = st.sampled_from([ME, OTHER, AccountIdentity(7, "Else")])
sightings = st.lists(
    st.tuples(st.floats(0, 0.3), st.builds(look, equity=st.floats(0, 9), identity=whose)),
    min_size=2,
    max_size=30,
)


@settings(max_examples=200)
@given(story=sightings)
def test_a_line_is_of_one_identity(story: list[tuple[float, Snapshot]]) -> None:
    scene = Scene()
    mine = story[0][1].identity
    for pause, seen in story:
        scene.loop.advance(pause)
        if seen.identity == mine:
            scene.stream.see(seen)
        else:
            before = (scene.stream.look, scene.stream.as_of_ms, scene.expected())
            with pytest.raises(StreamOver) as over:
                scene.stream.see(seen)
            assert over.value.code is CloseCode.RESTART
            assert (scene.stream.look, scene.stream.as_of_ms, scene.expected()) == before
    scene.loop.advance(1)
    account = scene.client.state["account"]
    assert (account["login"], account["server"]) == (mine.login, mine.server)
    assert scene.client.state == scene.expected()


def test_a_first_change_after_quiet_goes_out_at_once(scene: Scene) -> None:
    scene.stream.see(look())
    scene.loop.advance(5)
    scene.stream.see(look(equity=1.0))
    assert scene.client.types == ["snapshot", "account_update"]


def test_what_differs_is_found_once_for_a_look_and_its_message(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Changes] = []
    between = Changes.between

    def counted(told: View, newest: View) -> Changes:
        found.append(between(told, newest))
        return found[-1]

    scene.stream.see(look(positions={1: 0.0}))
    scene.loop.advance(1)
    monkeypatch.setattr(Changes, "between", counted)
    scene.stream.see(look(positions={1: 0.0, 2: 0.0}))
    assert scene.client.types[-1] == "position_update"
    assert [changes.dirty for changes in found] == [{Kind.POSITIONS: True}]
    scene.loop.advance(1)
    assert scene.client.state == scene.expected()
    assert len(found) == 1


def test_kinds_alternate_and_each_message_is_the_newest(scene: Scene) -> None:
    scene.stream.see(look(positions={1: 0.0}))
    for step in range(100):
        scene.stream.see(look(equity=float(step), positions={1: float(step)}))
        scene.loop.advance(0.02)
    types = scene.client.types[1:]
    assert 18 <= len(types) <= 20
    assert all(a != b for a, b in itertools.pairwise(types))


def test_what_was_opened_comes_before_what_the_market_moved(scene: Scene) -> None:
    scene.stream.see(look(positions={1: 0.0}))
    scene.stream.see(look(equity=1.0, positions={1: 0.0}))
    scene.stream.see(look(equity=2.0, positions={1: 0.0}))
    scene.stream.see(look(equity=3.0, positions={1: 0.0, 2: 0.0}))
    scene.loop.advance(0.5)
    assert scene.client.types[1:] == ["account_update", "position_update", "account_update"]


def test_structural_changes_without_end_do_not_starve_the_account(scene: Scene) -> None:
    scene.stream.see(look())
    for step in range(60):
        scene.stream.see(look(equity=float(step), positions={step: 0.0}))
        scene.loop.advance(0.05)
    assert scene.client.types.count("account_update") >= 3


def moving_order(price: float, **parts: Any) -> Snapshot:
    snapshot = look(**parts)
    order = msgspec.structs.replace(make_order(1), price_current=price)
    return msgspec.structs.replace(snapshot, orders=(order,))


def test_the_price_of_pending_orders_does_not_take_turns_with_the_rest(scene: Scene) -> None:
    scene.stream.see(moving_order(0.0, positions={1: 0.0}))
    for step in range(1, 31):
        scene.stream.see(moving_order(float(step), equity=float(step), positions={1: float(step)}))
        scene.loop.advance(0.2)
    types = scene.client.types
    assert types.count("order_update") == 1
    assert types.count("position_update") >= 29
    scene.loop.advance(1)
    assert scene.client.state == scene.expected()


def test_the_price_of_pending_orders_is_told_when_nothing_else_is(scene: Scene) -> None:
    scene.stream.see(moving_order(0.0))
    for step in range(1, 21):
        scene.stream.see(moving_order(float(step)))
        scene.loop.advance(0.1)
    assert scene.client.types[1:] == ["order_update"] * 4


def test_what_is_due_is_made_from_the_look_that_was_asked_for(scene: Scene) -> None:
    scene.stream.see(look(positions={1: 0.0}))
    scene.stream.see(look(equity=1.0, positions={1: 1.0}))
    assert scene.stream.hold_s() == pytest.approx(SPACING_S)
    # It comes a moment after the slot has opened.
    scene.loop.advance(SPACING_S + 0.01)
    assert scene.client.types[1:] == ["position_update"]
    scene.stream.see(look(equity=2.0, positions={1: 2.0}))
    assert scene.client.types[1:] == ["position_update", "account_update"]
    assert scene.client.state["account"]["equity"] == 2.0


def test_a_look_that_does_not_come_holds_nothing_up_for_long(scene: Scene) -> None:
    scene.stream.see(look(positions={1: 0.0}))
    scene.stream.see(look(equity=1.0, positions={1: 1.0}))
    scene.stream.hold_s()
    scene.loop.advance(SPACING_S + GRACE_S)
    assert scene.client.types[1:] == ["position_update", "account_update"]
    scene.loop.advance(5)
    assert scene.stream.hold_s() == 0


def test_trouble_does_not_wait_for_a_look(scene: Scene) -> None:
    scene.stream.see(look())
    scene.stream.see(look(equity=1.0))
    scene.stream.hold_s()
    scene.loop.advance(SPACING_S)
    scene.stream.trouble(Status(AccountState.TERMINAL_UNAVAILABLE, "away"))
    assert scene.client.types[1:] == ["account_update", "status"]


def test_a_change_that_is_undone_in_time_is_not_told(scene: Scene) -> None:
    scene.stream.see(look())
    scene.stream.see(look(equity=1.0))
    scene.stream.see(look(equity=2.0))
    scene.stream.see(look(equity=1.0))
    scene.loop.advance(1)
    assert scene.client.types == ["snapshot", "account_update"]


def test_trouble_and_recovery_are_told(scene: Scene) -> None:
    scene.stream.see(look())
    scene.stream.trouble(Status(AccountState.TERMINAL_UNAVAILABLE, "away"))
    assert scene.client.state["status"] == {"state": "terminal_unavailable", "reason": "away"}
    scene.loop.advance(1)
    scene.stream.see(look(online=False))
    assert scene.client.state["status"]["state"] == "broker_disconnected"
    scene.loop.advance(1)
    scene.stream.see(look())
    assert scene.client.state["status"] == {"state": "connected", "reason": None}
    assert scene.client.types == ["snapshot", "status", "status", "status"]


def test_trouble_before_the_first_look_is_told_and_the_snapshot_follows(scene: Scene) -> None:
    scene.stream.trouble(Status(AccountState.TERMINAL_UNAVAILABLE, "away"))
    assert scene.channel.snapshot() is None
    scene.loop.advance(1)
    scene.stream.see(look())
    assert scene.client.types == ["status", "snapshot", "status"]


def test_nothing_is_told_after_the_end(scene: Scene) -> None:
    scene.stream.see(look())
    scene.stream.see(look(equity=1.0))
    scene.stream.see(look(equity=2.0))
    scene.stream.end()
    scene.channel.end(CloseCode.RESTART, "moving")
    scene.loop.advance(1)
    assert scene.client.types == ["snapshot", "account_update"]
    assert scene.client.ended is CloseCode.RESTART


def test_latency_counts_from_the_first_look_at_a_change(scene: Scene) -> None:
    seen: list[Message] = []
    scene.stream.on_message = lambda numbered: seen.append(numbered.message)
    scene.stream.see(look(1_000))
    scene.stream.see(look(2_000, equity=1.0))
    scene.stream.see(look(2_010, equity=2.0))
    scene.stream.see(look(2_050, equity=3.0))
    scene.loop.advance(1)
    assert [message.seen_ms for message in seen] == [2_000, 2_010]
    assert json.loads(seen[1].text)["ts"] == "1970-01-01T00:00:02.050Z"


def test_snapshots_are_encoded_once_a_seq(scene: Scene) -> None:
    scene.stream.see(look())
    first = scene.channel.snapshot()
    assert scene.channel.snapshot() is first
    conflated = scene.channel.snapshot(conflated=True)
    assert conflated is not None
    assert json.loads(conflated.text)["data"]["conflated"] is True
    scene.stream.see(look(equity=1.0))
    assert scene.channel.snapshot() is not first


@pytest.mark.parametrize(
    ("bound", "value"), [("RING_MESSAGES", 3), ("RING_BYTES", 3_500), ("RING_MS", 350)]
)
def test_a_replay_is_whole_or_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(line_module, bound, value)
    scene.stream.see(look())
    for step in range(8):
        scene.stream.see(look(positions={step + 1: 0.0}))
        scene.loop.advance(0.1)
    # Asking drops what is too old.
    scene.channel.replay(5, 8)
    oldest = scene.line.oldest_seq
    assert 1 < oldest <= 8
    assert scene.channel.replay(5, oldest - 2) is None
    whole = scene.channel.replay(5, oldest - 1)
    assert whole is not None
    assert [json.loads(one.text)["seq"] for one in whole] == list(range(oldest, 9))
    assert scene.channel.replay(5, 8) == []
    assert scene.channel.replay(5, 9) is None
    assert scene.channel.replay(4, 8) is None

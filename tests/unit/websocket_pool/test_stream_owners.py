"""Two replicas and one account: whoever polls, every client is told one line."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.unit.websocket_pool.test_stream_line import NUMBERED, FakeLoop, look

from mt5kit.domain.accounts import AccountState
from mt5kit.domain.snapshots import Snapshot
from mt5kit.state.redis import Frame
from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.channel import Caught, Channel
from websocket_pool.close_codes import CloseCode
from websocket_pool.diff import Status
from websocket_pool.frames import frame_of, numbered_of
from websocket_pool.line import Numbered
from websocket_pool.messages import Message
from websocket_pool.pacer import NO_LULL_S
from websocket_pool.stream import Stream

AWAY = Status(AccountState.TERMINAL_UNAVAILABLE, "away")


class Ledger(dict[tuple[int, int], str]):
    """Every numbered message anybody has been told, by its place."""


class Client:
    """A reader that takes nothing but what contracts §4 permits."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.place = (0, 0)
        self.state: dict[str, Any] = {}

    def deliver(self, message: Message) -> bool:
        body = json.loads(message.text)
        place, data = (body["epoch"], body["seq"]), body["data"]
        if message.type == "snapshot":
            self._check_jump(place, conflated=data.get("conflated", False))
            self.state = {key: data[key] for key in ("account", "positions", "orders", "status")}
        elif not message.state:
            assert message.type == "status"
            assert place >= self.place
            self.state["status"] = data
            return True
        else:
            self._take(message.type, place, data)
            assert self.ledger.setdefault(place, message.text) == message.text
        self.place = place
        return True

    def end(self, code: CloseCode, reason: str) -> None:
        raise AssertionError(f"{code} {reason}")

    def _check_jump(self, place: tuple[int, int], *, conflated: bool) -> None:
        assert place >= self.place
        if place[0] == self.place[0] and place[1] > self.place[1]:
            assert conflated

    def _take(self, kind: str, place: tuple[int, int], data: dict[str, Any]) -> None:
        assert kind in NUMBERED
        if self.state.get("account"):
            assert place == (self.place[0], self.place[1] + 1)
        if kind == "account_update":
            self.state["account"] |= data["account"]
        elif kind == "position_update":
            self.state["positions"] = data["positions"]
        elif kind == "order_update":
            self.state["orders"] = data["orders"]
        else:
            self.state["status"] = data


class World:
    """What is in Redis, and the two replicas."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        ledger = Ledger()
        self.channels = [
            Channel("acc", StreamMetrics(CollectorRegistry()), self._now_ms) for _ in range(2)
        ]
        self.clients = [Client(ledger), Client(ledger)]
        for channel, client in zip(self.channels, self.clients, strict=True):
            channel.attach(client)
        self.token = 100
        self.owner = 0
        self.stored: Caught | None = None
        self.pending: list[Numbered] = []
        self.stream = self._begin(0, self.token)

    def look(self, event: Snapshot | Status) -> None:
        if isinstance(event, Status):
            self.stream.trouble(event)
        else:
            self.stream.see(event)

    def publish(self, *, heard: bool = True) -> None:
        """The owner writes; what it relays may be lost."""
        line = self.stream.line
        if not self.stream.opened:
            return
        frames = [frame_of(one) for one in self.pending]
        self.pending.clear()
        same = self.stored is not None and self.stored.epoch == line.epoch
        kept: list[Frame] = [*self.stored.frames] if same and self.stored else []
        told = msgspec.json.encode(line.told)
        self.stored = Caught(line.epoch, line.seq, told, tuple([*kept, *frames][-20:]))
        follower = self.channels[1 - self.owner]
        for frame in frames if heard and same else []:
            if follower.blank:
                self.follow()
            elif _place(follower)[1:] == (line.epoch, frame.seq - 1):
                follower.heard(numbered_of(frame, live=True))

    def follow(self) -> None:
        self._catch_up(1 - self.owner)

    def hand_over(self) -> None:
        self.stream.end()
        self.publish()
        self.token += 1
        continued = self.stream.opened
        self.owner = 1 - self.owner
        self._catch_up(self.owner)
        epoch = self.stream.epoch if continued else self.token
        self.stream = self._begin(self.owner, epoch)

    def crash(self) -> None:
        self.stream.end()
        self.pending.clear()
        self.token += 1
        self.owner = 1 - self.owner
        self._catch_up(self.owner)
        self.stream = self._begin(self.owner, self.token)

    def settle(self) -> dict[str, Any]:
        self.loop.advance(NO_LULL_S + 1)
        self.publish()
        self.follow()
        newest = self.stream._newest
        names = ("account", "positions", "orders", "status")
        parts = {name: getattr(newest, name) for name in names}
        return json.loads(msgspec.json.encode(parts))  # type: ignore[no-any-return]

    def _begin(self, owner: int, epoch: int) -> Stream:
        stream = Stream(self.channels[owner], epoch, self.loop)
        stream.on_message = self.pending.append
        return stream

    def _catch_up(self, replica: int) -> None:
        """What `LiveStore.follow` answers."""
        stored, (_, epoch, seq) = self.stored, _place(self.channels[replica])
        if stored is None:
            return
        missed = [frame for frame in stored.frames if frame.seq > seq]
        whole = [one.seq for one in missed] == [*range(seq + 1, stored.seq + 1)]
        if epoch != stored.epoch or self.channels[replica].blank:
            self.channels[replica].catch_up(stored)
        elif whole or stored.seq < seq:
            self.channels[replica].catch_up(
                Caught(stored.epoch, stored.seq, None, missed if whole else ())
            )
        else:
            self.channels[replica].catch_up(stored)

    def _now_ms(self) -> int:
        return round(self.loop.now * 1000)


def _place(channel: Channel) -> tuple[str, int, int]:
    place = channel.place
    return place.account_id, place.epoch, place.seq


looks = st.builds(
    look,
    equity=st.sampled_from([1000.0, 1001.0, 1002.0]),
    positions=st.dictionaries(st.integers(1, 3), st.sampled_from([0.0, 1.0]), max_size=3),
    orders=st.lists(st.integers(1, 2), unique=True, max_size=2).map(tuple),
    online=st.booleans(),
)
Event = Callable[[World], None]
events: st.SearchStrategy[Event] = st.one_of(
    looks.map(lambda seen: lambda world: world.look(seen)),
    looks.map(lambda seen: lambda world: world.look(seen)),
    st.just(lambda world: world.look(AWAY)),
    st.just(lambda world: world.publish()),
    st.just(lambda world: world.publish(heard=False)),
    st.just(World.follow),
    st.just(World.hand_over),
    st.just(World.crash),
)
stories = st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.3]), events), max_size=50)


@settings(max_examples=300)
@given(story=stories, last=looks)
def test_whoever_polls_every_client_is_told_one_line(
    story: list[tuple[float, Event]], last: Snapshot
) -> None:
    world = World()
    for pause, event in story:
        world.loop.advance(pause)
        event(world)
    world.look(last)
    expected = world.settle()
    for client in world.clients:
        assert client.state == expected
        assert client.place == _place(world.channels[world.owner])[1:]


def test_a_line_that_was_handed_over_goes_on_where_it_was() -> None:
    world = World()
    world.look(look(positions={1: 0.0}))
    world.publish()
    world.follow()
    world.look(look(positions={1: 0.0, 2: 0.0}))
    world.hand_over()
    world.loop.advance(1)
    world.look(look(positions={2: 0.0}))
    assert world.settle()["positions"][0]["ticket"] == 2
    assert [client.place for client in world.clients] == [(100, 2), (100, 2)]
    replayed = world.channels[1].replay(100, 0)
    assert replayed is not None
    assert [json.loads(one.text)["seq"] for one in replayed] == [1, 2]


def test_after_a_crash_even_trouble_begins_with_a_snapshot() -> None:
    world = World()
    world.look(look(positions={1: 0.0}))
    world.publish()
    world.crash()
    world.look(AWAY)
    assert [client.place for client in world.clients] == [(100, 0), (101, 0)]
    assert world.clients[1].state["status"] == {"state": "terminal_unavailable", "reason": "away"}
    assert world.clients[1].state["positions"][0]["ticket"] == 1

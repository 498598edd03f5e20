"""Which terminals there are to share out, and which of ours are about to end."""

from collections.abc import Mapping
from typing import Any

from mt5kit.service.departures import HEARD_S, INHERITED_S, Departures
from mt5kit.service.roster import DRAINED_S, GONE_S, SAID_S, Roster
from mt5kit.state.redis import TerminalEntry
from mt5kit.terminal.supervisor import Peer


class World:
    """Three terminals; what a replica knows of them is said by the test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.there = {"a", "b", "c"}
        self.held: dict[str, bool] = {}
        self.told: dict[str, bool | None] = {}
        self.roster = Roster(
            ("a", "b", "c"), self.there.__contains__, lambda: self.held, lambda: self.now
        )
        supervisors: Any = self
        self.departures = Departures(supervisors, self.roster.drains, lambda: self.now)

    def draining(self, terminal_id: str) -> bool | None:
        return self.told.get(terminal_id)

    async def look(self, _peers: Mapping[str, Peer | None]) -> None:
        """What it would ask is told by the test."""

    def says(self, terminal_id: str, *, up: bool = True, draining: bool = False) -> None:
        """Its owner, now."""
        entry = TerminalEntry(
            "ws-9", up, 0, None, 0, at_ms=round(self.now * 1000), draining=draining
        )
        self.roster.told({terminal_id: entry})

    @property
    def all(self) -> str:
        return "".join(self.roster.terminals())


def test_what_has_no_address_is_not_shared_out() -> None:
    world = World()
    world.there -= {"b"}
    assert world.all == "ac"
    world.there |= {"b"}
    assert world.all == "abc"


def test_what_is_up_is_there_whatever_our_dns_says() -> None:
    world = World()
    world.there.clear()
    world.says("b")
    world.says("c", up=False)
    assert world.all == "b"
    world.now += SAID_S
    assert world.all == ""


def test_ours_stay_while_they_are_connected_and_a_while_longer() -> None:
    world = World()
    world.held["a"] = True
    world.there.clear()
    world.now += 10 * GONE_S
    assert world.all == "a"
    world.held["a"] = False
    world.now += GONE_S - 1
    assert world.all == "a"
    world.now += 1
    assert world.all == ""
    # One that is started anew under its name.
    world.there.add("a")
    assert world.all == "a"


def test_one_that_was_never_connected_has_as_long() -> None:
    world = World()
    world.held["a"] = False
    assert world.all == "abc"
    world.there.clear()
    world.now += GONE_S - 1
    assert world.all == "a"
    world.now += 1
    assert world.all == ""
    # What was known of it is forgotten with its lease.
    world.held.clear()
    assert world.all == ""
    world.held["a"] = False
    assert world.all == "a"


def test_one_that_drains_is_taken_up_by_nobody_and_kept_by_its_owner() -> None:
    world = World()
    world.says("a", draining=True)
    assert world.all == "bc"
    world.held["a"] = True
    assert world.all == "abc"
    world.held.clear()
    world.now += DRAINED_S - 1
    assert world.all == "bc"
    last = TerminalEntry("", up=False, since_ms=1, switch_ms=None, waiting=0, draining=True)
    world.roster.told({"a": last})
    world.now += DRAINED_S - 1
    # The same words are not said anew by being heard again.
    world.roster.told({"a": last})
    assert world.all == "bc"
    world.now += 1
    assert world.all == "abc", "it may have been started anew"


def test_until_its_supervisor_has_spoken_a_terminals_last_owner_is_believed() -> None:
    world = World()
    world.says("a", draining=True)
    world.now += 2 * DRAINED_S
    world.departures.gained("a")
    world.departures.gained("b")
    assert world.departures.drain("a")
    assert not world.departures.drain("b")
    # What we say of it ourselves meanwhile proves nothing.
    world.says("a", draining=True)
    world.now += INHERITED_S
    assert not world.departures.drain("a")
    world.told["a"] = True
    assert world.departures.drain("a")
    world.told["a"] = False
    assert not world.departures.drain("a")


def test_a_terminal_that_was_lost_is_inherited_anew() -> None:
    world = World()
    world.says("a", draining=True)
    world.departures.gained("a")
    world.departures.lost("a")
    assert not world.departures.drain("a")
    world.says("a", draining=False)
    world.departures.gained("a")
    assert not world.departures.drain("a")


async def test_that_a_terminal_drains_is_known_to_all_after_a_while() -> None:
    world, peers = World(), dict.fromkeys(("a", "b"))
    assert await world.departures.look(peers) == []
    world.told = {"a": True, "b": False}
    assert await world.departures.look(peers) == ["a"]
    world.now += HEARD_S - 1
    assert await world.departures.look(peers) == ["a"]
    assert not world.departures.known("a")
    world.now += 1
    assert world.departures.known("a")
    assert not world.departures.known("b")
    # It did not, after all; and then it does.
    world.told["a"] = False
    assert await world.departures.look(peers) == []
    world.told["a"] = True
    assert await world.departures.look(peers) == ["a"]
    assert not world.departures.known("a")
    world.now += HEARD_S
    world.departures.lost("a")
    assert not world.departures.known("a")

"""The judge of streams judges: each breach of contracts §4 is seen, and good lines are not."""

import copy
import json
from typing import Any

import pytest
from tests.watch_judge import ACCOUNT_FIELDS, Mirror
from tests.watch_ledger import Ledger

EPOCH, LOGIN, ME = 7, 700_001, "account-1"
START = "2026-01-05T10:00:00.000Z"


def row(ticket: int, **changes: object) -> dict[str, Any]:
    terms = {"volume": 0.1, "sl": 0.0, "tp": 0.0, "price_open": 1.0, "comment": ""}
    return {"ticket": ticket, "symbol": "EURUSD", "profit": 0.0, **terms, **changes}


ACCOUNT = {"login": LOGIN, "balance": 10.0} | {f"f{n}": n for n in range(ACCOUNT_FIELDS - 2)}
STATE = {"account": ACCOUNT, "positions": [row(1), row(2)], "orders": []}


class Client:
    """A watcher that is told what a test says."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger()
        self.mirror = Mirror(ME, LOGIN, self.ledger, "somebody")

    def come(self, seq: int = 0, *, epoch: int = EPOCH, resumed: bool = False) -> None:
        self.mirror.begin("ws-1", self.mirror.since)
        self.hear("connected", seq, {"resumed": resumed, "resume_ticket": "x"}, epoch=epoch)

    def hear(self, kind: str, seq: int, data: object, **changes: object) -> None:
        envelope = {"type": kind, "account_id": ME, "epoch": EPOCH, "seq": seq, "ts": START}
        self.mirror.hear(json.dumps({**envelope, "data": data, **changes}).encode())

    def balance(self, seq: int, value: float, **changes: object) -> None:
        self.hear("account_update", seq, {"account": {"balance": value}}, **changes)

    @property
    def sentences(self) -> list[str]:
        return [one.splitlines()[0] for one in self.ledger.wrong]

    def accused_of(self, words: str) -> bool:
        return any(words in one for one in self.sentences)


@pytest.fixture
def client() -> Client:
    one = Client()
    one.come()
    one.hear("snapshot", 0, STATE)
    one.balance(1, 11.0)
    return one


def update(after: list[Any], **named: list[Any]) -> dict[str, Any]:
    return {"positions": after, "opened": [], "closed": [], "modified": [], **named}


def test_a_good_line_is_not_accused(client: Client) -> None:
    opened, changed = row(3), row(2, sl=0.5)
    client.hear(
        "position_update",
        2,
        update([changed, opened], opened=[opened], closed=[row(1)], modified=[changed]),
    )
    client.hear("status", 2, {"state": "degraded", "reason": "Redis is away"})
    client.hear("pong", 2, {})
    client.come(4, resumed=True)
    client.hear("status", 3, {"state": "connected", "reason": None})
    client.balance(4, 12.0)
    client.hear("snapshot", 9, {**STATE, "conflated": True})
    client.hear("snapshot", 0, STATE, epoch=EPOCH + 1)
    assert client.ledger.wrong == []
    assert client.mirror.since == (EPOCH + 1, 0)


@pytest.mark.parametrize(
    ("seq", "words"), [(3, "A GAP"), (1, "BACKWARDS or twice"), (0, "BACKWARDS or twice")]
)
def test_a_number_out_of_line_is_seen(client: Client, seq: int, words: str) -> None:
    client.balance(seq, 12.0)
    assert client.accused_of(words)


def test_a_new_epoch_without_a_snapshot_is_seen(client: Client) -> None:
    client.balance(2, 12.0, epoch=EPOCH + 1)
    assert client.accused_of("without a snapshot")


def test_only_a_conflated_snapshot_may_jump(client: Client) -> None:
    client.hear("snapshot", 5, STATE)
    assert client.accused_of("not conflated")


@pytest.mark.parametrize("conflated", [False, True])
def test_a_snapshot_of_an_older_seq_is_seen(client: Client, conflated: bool) -> None:
    client.hear("snapshot", 0, {**STATE, "conflated": conflated})
    assert client.accused_of("BACKWARDS")


def test_a_reconnect_that_goes_backwards_is_seen(client: Client) -> None:
    client.come(0)
    assert client.accused_of("BACKWARDS")


def test_who_does_not_say_what_it_has_may_be_told_something_older(client: Client) -> None:
    client.mirror.begin("ws-2", None)
    client.hear("connected", 0, {"resumed": False, "resume_ticket": "x"})
    assert client.ledger.wrong == []
    assert client.ledger.counts["older seq after a reconnect without `since`"] == 1


def test_a_gap_after_a_resume_is_seen(client: Client) -> None:
    client.come(3, resumed=True)
    client.balance(3, 12.0)
    assert client.accused_of("A GAP")


def test_a_resume_in_another_epoch_is_seen(client: Client) -> None:
    client.come(1, epoch=EPOCH + 1, resumed=True)
    assert client.accused_of("resumed at")


def test_an_unnumbered_message_may_not_run_ahead(client: Client) -> None:
    client.hear("pong", 3, {})
    client.balance(2, 12.0)
    assert client.accused_of("run ahead")


def test_an_unnumbered_message_of_the_past_is_seen(client: Client) -> None:
    client.hear("heartbeat", 0, {"resume_ticket": "y"})
    assert client.accused_of("carries 0 after 1")


def test_a_message_of_another_account_is_seen(client: Client) -> None:
    client.balance(2, 12.0, account_id="account-2")
    assert client.accused_of("WRONG ACCOUNT")


def test_figures_of_another_account_are_seen(client: Client) -> None:
    client.hear("account_update", 2, {"account": {"login": LOGIN + 1}})
    assert client.accused_of("WRONG ACCOUNT")


def test_positions_of_another_account_are_seen(client: Client) -> None:
    other = Mirror("account-2", LOGIN, client.ledger, "another")
    other.begin("ws-1", None)
    envelope = {"account_id": "account-2", "epoch": EPOCH, "seq": 0, "ts": START}
    greeting = {"resumed": False, "resume_ticket": "x"}
    for kind, data in (("connected", greeting), ("snapshot", STATE)):
        other.hear(json.dumps({"type": kind, **envelope, "data": data}).encode())
    assert client.accused_of("WRONG ACCOUNT: ticket 1")


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"opened": [row(3)]},
        {"opened": [row(3)], "closed": [row(1)]},
        {"opened": [row(3)], "closed": [row(1, profit=9.0)], "modified": [row(2, sl=0.5)]},
        {"opened": [row(3)], "closed": [row(1)], "modified": [row(2)]},
        {"opened": [row(3), row(2)], "closed": [row(1)], "modified": [row(2, sl=0.5)]},
    ],
)
def test_what_is_named_must_be_what_has_changed(client: Client, named: dict[str, Any]) -> None:
    client.hear("position_update", 2, update([row(2, sl=0.5), row(3)], **named))
    assert client.ledger.wrong


def test_a_field_that_has_not_changed_is_seen(client: Client) -> None:
    client.balance(2, 11.0)
    assert client.accused_of("not changed")


def test_a_refreshed_snapshot_of_another_state_is_seen(client: Client) -> None:
    client.hear("snapshot", 1, STATE)
    assert client.accused_of("the state of")


def test_two_messages_of_one_number_are_seen(client: Client) -> None:
    other = Client(client.ledger)
    other.come()
    other.hear("snapshot", 0, copy.deepcopy(STATE))
    assert not client.ledger.wrong
    other.balance(1, 11.5)
    assert client.accused_of("a message of")


def test_state_before_a_snapshot_is_seen() -> None:
    client = Client()
    client.come()
    client.hear("status", 1, {"state": "terminal_unavailable", "reason": "frozen"})
    assert not client.ledger.wrong
    client.balance(2, 12.0)
    assert client.accused_of("before a snapshot")


def test_anything_before_connected_is_seen() -> None:
    client = Client()
    client.mirror.begin("ws-1", None)
    client.hear("snapshot", 0, STATE)
    assert client.accused_of("before `connected`")


def test_two_who_poll_at_once_are_seen(client: Client) -> None:
    client.balance(2, 12.0, ts="2026-01-05T10:00:02.000Z")
    client.hear("snapshot", 0, STATE, epoch=EPOCH + 1)
    client.balance(1, 12.0, epoch=EPOCH + 1, ts="2026-01-05T10:00:02.000Z")
    assert client.ledger.overlaps() == []
    client.come(2, epoch=EPOCH)
    client.hear("snapshot", 2, {**STATE, "account": ACCOUNT | {"balance": 12.0}})
    client.balance(3, 13.0, ts="2026-01-05T10:00:03.000Z")
    assert len(client.ledger.overlaps()) == 1

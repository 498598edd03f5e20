"""The model against the very line that the websocket pool numbers and encodes."""

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.console.console_fakes import account_info, order, position

from console.account_model import DEGRADED, AccountModel, Frame
from mt5kit.domain.accounts import AccountInfo, AccountState
from mt5kit.domain.trades import Order, Position
from websocket_pool.diff import Changes, Status, View
from websocket_pool.line import Line
from websocket_pool.messages import Message, Place, encode

INFO = msgspec.convert(account_info(5000001, 1000.0), AccountInfo)
FIRST = View(Status(AccountState.CONNECTED), INFO, (), (), 1)


@dataclass(frozen=True)
class Change:
    """The account as it is next, and whether the messages that say so get lost."""

    profits: dict[int, float]
    orders: set[int]
    equity: float
    state: AccountState
    lost: bool

    def view(self, at_ms: int) -> View:
        held = [position(ticket, profit=profit) for ticket, profit in self.profits.items()]
        return View(
            Status(self.state),
            msgspec.structs.replace(INFO, equity=self.equity),
            msgspec.convert(held, tuple[Position, ...]),
            msgspec.convert([order(ticket) for ticket in sorted(self.orders)], tuple[Order, ...]),
            at_ms,
        )


tickets = st.integers(1, 5)
amounts = st.floats(-1e6, 1e6, allow_nan=False)
changes = st.builds(
    Change,
    st.dictionaries(tickets, amounts, max_size=4),
    st.sets(tickets, max_size=3),
    amounts,
    st.sampled_from(AccountState),
    st.booleans(),
)


def frame_of(message: Message | None) -> Frame:
    assert message is not None
    return msgspec.json.decode(message.text, type=Frame)


def agrees(model: AccountModel, line: Line) -> bool:
    told = line.told
    return (
        (model.account, model.positions, model.orders)
        == (told.account, told.positions, told.orders)
        and model.status is not None
        and model.status.state == told.status.state
        and (model.epoch, model.seq) == (line.epoch, line.seq)
    )


def line_of(epoch: int) -> Line:
    line = Line("demo-1")
    line.restore(epoch)
    return line


def begun() -> tuple[AccountModel, Line]:
    line = line_of(7)
    line.begin(FIRST)
    return AccountModel().apply(frame_of(line.snapshot())), line


@settings(max_examples=60)
@given(st.lists(changes, max_size=12))
def test_the_model_is_the_last_state_or_knows_that_it_is_not(steps: list[Change]) -> None:
    model, line = begun()
    missing = False
    for at_ms, step in enumerate(steps, start=2):
        newest = step.view(at_ms)
        changes = Changes.between(line.told, newest)
        for kind in changes.dirty:
            message = line.advance(kind, changes, at_ms).message
            missing = missing or step.lost
            if not step.lost:
                model = model.apply(frame_of(message))
                assert model.broken == missing
        if not missing:
            assert agrees(model, line)
    model = model.apply(frame_of(encode("heartbeat", line.place, 1, {"resume_ticket": "t"})))
    assert model.broken == missing
    assert agrees(model.apply(frame_of(line.snapshot())), line)


def moved() -> tuple[AccountModel, list[Frame], Line]:
    """A model, and three frames that follow it."""
    model, line = begun()
    frames = []
    for number in range(1, 4):
        newest = Change({1: number}, set(), number, AccountState.CONNECTED, lost=False).view(number)
        changes = Changes.between(line.told, newest)
        kind = next(iter(changes.dirty))
        frames.append(frame_of(line.advance(kind, changes, number).message))
    return model, frames, line


def test_a_message_heard_twice_changes_nothing() -> None:
    model, frames, _ = moved()
    once = model.apply(frames[0]).apply(frames[1])
    assert once.apply(frames[0]).apply(frames[1]) == once


def test_a_good_resume_goes_on_from_where_the_model_stood() -> None:
    model, frames, line = moved()
    model = model.apply(frames[0])
    greeting = {"instance_id": "ws-2", "heartbeat_s": 15, "resumed": True, "resume_ticket": "t"}
    model = model.apply(frame_of(encode("connected", line.place, 1, greeting)))
    for frame in frames[1:]:
        model = model.apply(frame)
    assert not model.broken
    assert agrees(model, line)


def test_without_a_resume_changes_wait_for_the_snapshot() -> None:
    model, _, line = moved()
    greeting = {"instance_id": "ws-2", "heartbeat_s": 15, "resumed": False, "resume_ticket": "t"}
    model = model.apply(frame_of(encode("connected", line.place, 1, greeting)))
    assert model.account is not None  # the old figures stay on the page meanwhile
    assert not model.based
    change = {"type": "account_update", "account_id": "demo-1", "epoch": 7, "ts": "",
              "seq": line.seq + 1, "data": {"account": {"equity": 5.0}}}  # fmt: skip
    early = msgspec.json.decode(msgspec.json.encode(change), type=Frame)
    assert model.apply(early).broken
    assert agrees(model.apply(frame_of(line.snapshot())), line)


def test_a_new_epoch_without_a_snapshot_is_a_gap() -> None:
    model, frames, _ = moved()
    assert model.apply(msgspec.structs.replace(frames[0], epoch=8)).broken


def stated(line: Line, state: str, *, epoch: int = 7, seq: int | None = None) -> Frame:
    """A `status`, at the line's place unless given."""
    place = Place("demo-1", epoch, line.seq if seq is None else seq)
    return frame_of(encode("status", place, 1, {"state": state, "reason": "so it is"}))


def test_a_status_on_the_spot_is_shown_and_not_counted() -> None:
    model, frames, _ = moved()
    line = line_of(7)
    deaf = model.apply(stated(line, DEGRADED))
    assert deaf.status is not None
    assert deaf.status.state == DEGRADED
    assert msgspec.structs.replace(deaf, status=model.status) == model
    well = deaf.apply(stated(line, "connected")).apply(frames[0])
    assert well.status is not None
    assert (well.status.state, well.seq, well.broken) == ("connected", 1, False)


def test_an_old_status_is_not_shown_again() -> None:
    model, frames, line = moved()
    model = model.apply(frames[0]).apply(frames[1])
    assert model.apply(stated(line, "new", seq=1)) == model


@pytest.mark.parametrize(("epoch", "seq"), [(8, 0), (7, 5)])
def test_a_status_out_of_turn_is_shown_and_the_figures_are_awaited(epoch: int, seq: int) -> None:
    model, _, line = moved()
    waiting = model.apply(stated(line, "connecting", epoch=epoch, seq=seq))
    assert waiting.status is not None
    assert (waiting.status.state, waiting.broken) == ("connecting", True)
    more = waiting.apply(stated(line, "login_failed", epoch=epoch, seq=seq + 1))
    assert more.status is not None
    assert (more.status.state, more.broken, more.account) == ("login_failed", True, model.account)


def test_a_snapshot_of_another_epoch_replaces_everything() -> None:
    model, frames, _ = moved()
    model = model.apply(frames[0])
    line = line_of(8)
    line.begin(FIRST)
    assert agrees(model.apply(frame_of(line.snapshot())), line)


def greeted(model: AccountModel, epoch: int, seq: int, **more: object) -> AccountModel:
    data = {"instance_id": "ws-2", "heartbeat_s": 15, "resumed": True, "resume_ticket": "t"}
    return model.apply(frame_of(encode("connected", Place("demo-1", epoch, seq), 1, data | more)))


@pytest.mark.parametrize(("epoch", "seq"), [(8, 9), (7, 0)])
def test_a_resume_elsewhere_in_the_line_is_not_believed(epoch: int, seq: int) -> None:
    model, frames, _ = moved()
    assert greeted(model.apply(frames[0]), epoch, seq).broken
    assert not greeted(model.apply(frames[0]), 7, 1).broken


def test_a_greeting_ends_what_the_last_replica_said_of_itself() -> None:
    model, _, line = moved()
    deaf = model.apply(stated(line, DEGRADED, seq=0))
    assert greeted(deaf, 7, 0).status is None
    told = greeted(deaf, 7, 0, status={"state": "connected", "reason": None}).status
    assert told is not None
    assert told.state == "connected"


def test_what_is_not_of_the_contract_is_refused() -> None:
    model, frames, _ = moved()
    wrong = msgspec.structs.replace(frames[0], type="status", data=msgspec.Raw(b'{"state": 5}'))
    with pytest.raises(msgspec.ValidationError):
        model.apply(wrong)

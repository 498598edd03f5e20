"""The memory of looks: bounded, never backwards, current only for a moment."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.api_pool.looks_made import snapshot

from api_pool.memory import CHECK_S, LATEST_CHECK_S, Kept, LookMemory
from api_pool.seen import Seen

SEEN = Seen.of(snapshot())


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def kept(as_of_ms: int, terminal_id: str = "t-1") -> Kept:
    return Kept(SEEN, terminal_id, "api-1", "cache", as_of_ms)


def test_a_look_is_current_for_a_moment_and_then_only_the_last() -> None:
    clock = Clock()
    memory = LookMemory(clock=clock)
    look = memory.put("a", kept(10))
    clock.now += CHECK_S / 2
    assert memory.current("a") is look
    clock.now += CHECK_S
    assert memory.current("a") is None
    assert memory.last("a") is look
    assert memory.confirm("a") is look
    assert memory.current("a") is look
    memory.drop("a")
    assert (memory.current("a"), memory.last("a"), memory.confirm("a")) == (None, None, None)
    assert (memory.bytes, len(memory)) == (0, 0)


def test_one_reader_asks_the_state_store_and_the_others_go_on() -> None:
    clock = Clock()
    memory = LookMemory(clock=clock)
    look = memory.put("a", kept(10))
    clock.now += CHECK_S + 0.01
    assert [memory.current("a") for _ in range(3)] == [None, look, look]
    # Nothing came of it: then all ask for themselves.
    clock.now += LATEST_CHECK_S - CHECK_S
    assert [memory.current("a") for _ in range(3)] == [None, None, None]
    memory.confirm("a")
    assert memory.current("a") is look
    clock.now += CHECK_S + 0.01
    assert [memory.current("a") for _ in range(2)] == [None, look]
    newer = memory.put("a", kept(11))
    clock.now += CHECK_S + 0.01
    assert [memory.current("a") for _ in range(2)] == [None, newer]


def test_an_older_look_of_the_same_terminal_changes_nothing() -> None:
    clock = Clock()
    memory = LookMemory(clock=clock)
    newer = memory.put("a", kept(20))
    clock.now += 1
    # It was compared with what the state store has, so ours is current again.
    assert memory.put("a", kept(10)) is newer
    assert memory.current("a") is newer
    # Instants of different machines do not compare: where the account is now, counts.
    moved = kept(15, "t-2")
    assert memory.put("a", moved) is moved
    assert memory.last("a") is moved


@given(st.integers(min_value=0, max_value=2**32))
def test_it_never_outgrows_its_bytes_and_forgets_what_was_read_longest_ago(seed: int) -> None:
    random = Random(seed)
    room = 8
    memory = LookMemory(most_bytes=room * kept(0).bytes)
    model: list[str] = []
    for step in range(200):
        account_id = f"a-{random.randrange(12)}"
        action = random.choice(("put", "last", "drop"))
        if action == "put":
            memory.put(account_id, kept(step))
        elif action == "last":
            assert (memory.last(account_id) is not None) == (account_id in model)
        else:
            memory.drop(account_id)
        touched = action == "put" or (action == "last" and account_id in model)
        model = [one for one in model if one != account_id] + [account_id] * touched
        model = model[-room:]
        assert memory.bytes == len(memory) * kept(0).bytes <= room * kept(0).bytes, seed
        assert len(memory) == len(model), seed


def test_a_look_larger_than_the_memory_is_not_kept() -> None:
    memory = LookMemory(most_bytes=100)
    look = kept(1)
    assert memory.put("a", look) is look
    assert (memory.last("a"), memory.bytes) == (None, 0)


def test_meta_tells_the_age_of_this_instant() -> None:
    meta = kept(1_767_225_600_250).meta("acc")
    assert (meta.account_id, meta.terminal_id, meta.source) == ("acc", "t-1", "cache")
    assert meta.as_of == "2026-01-01T00:00:00.250Z"
    assert kept(2**47).meta("acc").age_ms == 0
    later = kept(1000).true_at(2000)
    assert (later.as_of_ms, later.as_of) == (2000, "1970-01-01T00:00:02.000Z")

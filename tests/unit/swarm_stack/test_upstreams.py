import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_stack.sizes import Pool, Sizes
from swarm_stack.upstreams import MarksMissing, with_slots

SIZES = Sizes.read()
# Text that could stand around a list; no marks can come of it.
AROUND = st.text(st.characters(exclude_characters="#\r"), max_size=60).map(lambda text: text + "\n")


def sized(most: int) -> Sizes:
    pool = Pool(min=1, max=most)
    return msgspec.structs.replace(
        SIZES, pools=msgspec.structs.replace(SIZES.pools, websocket=pool)
    )


@given(AROUND, AROUND, AROUND, st.integers(1, 40), st.integers(0, 3))
def test_a_list_has_a_server_for_each_slot_and_nothing_else_changes(
    before: str, old: str, after: str, most: int, indent: int
) -> None:
    space = " " * 4 * indent
    begin, end = f"{space}# >>> websocket-pool\n", f"{space}# <<< websocket-pool\n"
    made = with_slots(f"{before}{begin}{old}{end}{after}", sized(most))
    assert made.startswith(before + begin)
    assert made.endswith(end + after)
    inside = made.removeprefix(before + begin).removesuffix(end + after)
    servers = [line.removeprefix(space).split()[:3] for line in inside.splitlines()]
    assert servers == [["server", f"ws-{slot}:8000", "resolve"] for slot in range(1, most + 1)]
    assert with_slots(made, sized(most)) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# >>> websocket-pool\n",
        "# >>> websocket-pool\n# <<< api-pool\n",
        "  # >>> websocket-pool\n# <<< websocket-pool\n",
        "# >>> websocket-pool\n# <<< websocket-pool\n" * 2,
        "# >>> websocket-pool\n# <<< websocket-pool\n# >>> console\n# <<< console\n",
    ],
)
def test_marks_stand_exactly_once(text: str) -> None:
    with pytest.raises(MarksMissing, match="websocket-pool"):
        with_slots(text, SIZES)

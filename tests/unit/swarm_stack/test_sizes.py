from pathlib import Path

import pytest

from swarm_stack.sizes import PATH, Sizes, SizesInvalid


def test_the_file_of_the_repository_is_read() -> None:
    sizes = Sizes.read()
    assert (sizes.pools.api.max, sizes.pools.websocket.max) == (20, 10)
    assert sizes.terminals.reserved_gb < sizes.terminals.limit_gb
    assert sizes.networks.services == "10.77.2.0/24"


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("max = 20", "maxx = 20", "unknown field `maxx`"),
        ("max = 20", "max = 2", "max 2 is below min 3"),
        ("min = 2", "min = 0", r"`int` >= 1 - at `\$.pools.websocket.min`"),
        ("min = 2", 'min = "2"', "Expected `int`, got `str`"),
        ("10.77.2.0/24", "10.77.2.1/24", "has host bits set"),
        ("[networks]", "[networks", "Expected ']'"),
    ],
)
def test_what_is_wrong_in_it_is_said(tmp_path: Path, there: str, instead: str, said: str) -> None:
    changed = PATH.read_text(encoding="utf-8").replace(there, instead)
    path = tmp_path / "stack.toml"
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(SizesInvalid, match=said):
        Sizes.read(path)

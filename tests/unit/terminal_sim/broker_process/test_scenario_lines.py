"""A refused scenario names the line, and nothing but ScenarioError ever comes of one."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import terminal_sim.scenario
from terminal_sim.scenario.lines import locate, steps
from terminal_sim.scenario.loading import load
from terminal_sim.scenario.model import ScenarioError

NOW_MS = 1_795_005_296_789
DEMO = (Path(next(iter(terminal_sim.scenario.__path__))) / "demo.toml").read_text()
TOML = """\
# a comment with = and [ and "
title = 'x # no comment' # but this is "one"
[[servers]]
name = "S" # 4
text = \"\"\"
[[servers]]
a "" quoted \\\\\"\"\"
other = '''
key = 1'''

[[accounts]]  # 11
login = 1
'quoted key' = 2
"esc\\u0061ped" = 3
nested.dotted.key = 4
positions = [
  { symbol = "EURUSD", opened_at = 2026-01-02 03:04:05 }, # 17
  # { nothing }
  { symbol = "a]}", volume = [1,
     2], last = 3 },
]
[[accounts.orders]] # 22
price = 1.5
[[accounts.orders]]
price = 2.5
[accounts.robot]
symbol = "X"
[[accounts]] # 28
login = 2
[accounts.robot]
symbol = "Y" # 31
"""
LINES = {
    (): 1,
    ("title",): 2,
    ("servers", 0): 3,
    ("servers", 0, "name"): 4,
    ("servers", 0, "text"): 5,
    ("servers", 0, "other"): 8,
    ("accounts", 0): 11,
    ("accounts", 0, "quoted key"): 13,
    ("accounts", 0, "escaped"): 14,
    ("accounts", 0, "nested", "dotted", "key"): 15,
    ("accounts", 0, "positions"): 16,
    ("accounts", 0, "positions", 0, "opened_at"): 17,
    ("accounts", 0, "positions", 1): 19,
    ("accounts", 0, "positions", 1, "volume", 1): 20,
    ("accounts", 0, "positions", 1, "last"): 20,
    ("accounts", 0, "positions", 1, "missing"): 19,
    ("accounts", 0, "orders", 1, "price"): 25,
    ("accounts", 0, "robot", "symbol"): 27,
    ("accounts", 1): 28,
    ("accounts", 1, "robot", "symbol"): 31,
    ("accounts", 1, "robot", "none"): 30,
    ("accounts", 7): 11,
}


@pytest.mark.parametrize("path", LINES)
def test_toml_is_followed(path: tuple[Any, ...]) -> None:
    tomllib.loads(TOML)
    assert locate(TOML, ".toml", path) == LINES[path]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("a",), 2),
        (("b", 0, "c"), 4),
        (("b", 1), 5),
        (("b", 1, "d", 2), 8),
        (("b", 1, "gone"), 5),
        (('q"}',), 10),
    ],
)
def test_json_is_followed(path: tuple[Any, ...], line: int) -> None:
    text = (
        '{\n"a": "x\\"}",\n"b": [{\n  "c": 1},\n {"d": [\n 1,\n {},\n -2.5e3]}\n],\n"q\\"}": null}'
    )
    json.loads(text)
    assert locate(text, ".json", path) == line


def test_a_place_is_a_path() -> None:
    assert steps("$.accounts[10].robot.hold_s") == ("accounts", 10, "robot", "hold_s")
    assert steps("$") == ()


def test_deep_nesting_has_the_first_line() -> None:
    assert locate("[" * 5000 + "]" * 5000, ".json", (0, 0)) == 1


# Everything JSON can say, as a value inside of it.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(value: Any) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [(), *((key, *rest) for key in value for rest in places(value[key]))]
    if isinstance(value, list):
        return [(), *((i, *rest) for i, each in enumerate(value) for rest in places(each))]
    return [()]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


PARSED = json.loads(json.dumps(tomllib.loads(DEMO)))
SOUND = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def attempt(path: Path) -> None:
    try:
        load(path, NOW_MS)
    except ScenarioError as error:
        refused = error
    else:
        return
    assert str(refused).startswith(f"{path}: ")
    assert refused.reason.startswith("line "), refused.reason
    lines = path.read_text(encoding="utf-8", errors="replace").count("\n") + 1
    assert 1 <= int(refused.reason.split()[1].rstrip(":")) <= lines
    assert "Demo-100" not in refused.reason  # as all its passwords begin


@SOUND
@given(st.sampled_from(places(PARSED)), VALUES)
def test_any_value_anywhere_is_taken_or_refused(
    tmp_path: Path, place: tuple[Any, ...], value: Any
) -> None:
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps(replaced(PARSED, place, value), indent=1))
    attempt(path)


@SOUND
@given(st.integers(0, len(DEMO) - 1), st.integers(0, 20), st.text("[]{}=\".,#\n'0aé\\", max_size=4))
def test_any_damage_to_a_file_is_taken_or_refused(
    tmp_path: Path, at: int, length: int, text: str
) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(DEMO[:at] + text + DEMO[at + length :])
    attempt(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"XAUUSD", type = "sell"', '"XAUUSD", type = "hold"'),
        ("login = 5001002", "login = 5001001"),
        ('robot = { symbol = "EURUSD", volume = 0.01', "robot = { y = 1"),
        ("leverage = 25", "levrage = 25"),
        ('currency = "JPY"', 'currency = "JPY'),
        ('"XAGUSD", type = "buy_stop", volume = 0.02', '"XAGUSD", type = "buy_stop", volume = nan'),
        ('"NZDUSD", type = "buy", volume = 0.3, opened_at = "-4d"', '"NZDUSD"'),
    ],
)
def test_the_line_is_that_of_the_fault(tmp_path: Path, old: str, new: str) -> None:
    assert DEMO.count(old) == 1
    line = DEMO.count("\n", 0, DEMO.index(old)) + 1
    path = tmp_path / "scenario.toml"
    path.write_text(DEMO.replace(old, new))
    with pytest.raises(ScenarioError) as refused:
        load(path, NOW_MS)
    assert refused.value.reason.startswith(f"line {line}: ")


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("commission = -1.0", "line 4: "),
        ('trading_days = "some"', "line 4: Invalid enum value"),
    ],
)
def test_terms_of_a_server_are_checked(tmp_path: Path, server: str, reason: str) -> None:
    path = tmp_path / "scenario.toml"
    account = '[[accounts]]\nlogin = 1\npassword = "x"\nserver = "S"\n'
    path.write_text(f'\n[[servers]]\nname = "S"\n{server}\n{account}')
    with pytest.raises(ScenarioError) as refused:
        load(path, NOW_MS)
    assert reason in refused.value.reason
    path.write_text(
        f'[[servers]]\nname = "S"\ncommission = 3.5\ntrading_days = "weekdays"\n{account}'
    )
    loaded = load(path, NOW_MS).servers[0]
    assert (loaded.commission, loaded.trading_days) == (3.5, "weekdays")


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scenario.json"
    account = '{"login": 1, "password": "x",\n"server": "S", "name": "\\ud800"}'
    path.write_text(f'{{"servers": [{{"name": "S"}}],\n"accounts": [{account}]}}')
    with pytest.raises(ScenarioError, match=r"line 3: .*is not valid Unicode"):
        load(path, NOW_MS)


def test_a_robot_that_never_stopped_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    robot = (
        'robot = { symbol = "EURUSD", volume = 1, starts_at = "2000-02-01",'
        " period_s = 0.1, hold_s = 0.05 }"
    )
    path.write_text(
        f'[[servers]]\nname = "S"\n[[accounts]]\nlogin = 1\npassword = "x"\nserver = "S"\n{robot}\n'
    )
    with pytest.raises(ScenarioError, match=r"line 7: .*traded more than 5000000 times"):
        load(path, NOW_MS)

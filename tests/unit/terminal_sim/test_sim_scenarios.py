from collections.abc import Callable
from pathlib import Path

import pytest

from terminal_sim.scenario.loading import load
from terminal_sim.scenario.model import Scenario, ScenarioError
from terminal_sim.scenario.moments import DAY_MS, Moment

NOW_MS = 1_795_005_296_789
SERVER = '[[servers]]\nname = "S"\n'
ACCOUNT = '[[accounts]]\nlogin = 1\npassword = "secret-1"\nserver = "S"\n'
POSITION = '{ symbol = "EURUSD", type = "buy", volume = 1.0, opened_at = "-2d" }'

BAD = {
    "line 2": SERVER.replace("name =", "name"),
    "$.accounts[0].login": SERVER + ACCOUNT.replace("1\n", '"x"\n', 1),
    "unknown field `nonsense`": SERVER + ACCOUNT + "nonsense = 1\n",
    "missing required field `password`": SERVER + ACCOUNT.replace("password", "#"),
    "no server is named 'T'": SERVER + ACCOUNT.replace('"S"', '"T"'),
    "$.accounts[1].login: 1 is already": SERVER + ACCOUNT + ACCOUNT,
    "$.servers: two servers": SERVER + SERVER + ACCOUNT,
    "$.servers[0].clock: clock must be": SERVER + 'clock = "Mars"\n' + ACCOUNT,
    "$.accounts[0].password: is empty": SERVER + ACCOUNT.replace("secret-1", ""),
    "Expected `array` of length >= 1": "servers = []\naccounts = []",
    "positions[0].symbol: no symbol": SERVER
    + ACCOUNT
    + f"positions = [{POSITION}]".replace("EURUSD", "EURXXX"),
    "Invalid enum value": SERVER + ACCOUNT + f"positions = [{POSITION}]".replace("buy", "hold"),
    "$.accounts[0].positions[0].volume": SERVER
    + ACCOUNT
    + f"positions = [{POSITION}]".replace("1.0", "-1.0"),
    "$.accounts[0].balance": SERVER + ACCOUNT + "balance = nan\n",
    "$.accounts[0].positions[0].price_open": SERVER
    + ACCOUNT
    + f"positions = [{POSITION}]".replace(" }", ", price_open = inf }"),
    "a time is an ISO 8601 text": SERVER
    + ACCOUNT
    + f"positions = [{POSITION}]".replace('"-2d"', "5"),
    "Invalid isoformat string": SERVER
    + ACCOUNT
    + f"positions = [{POSITION}]".replace("-2d", "soon"),
    "from 2000 to 2100": SERVER
    + ACCOUNT
    + f"positions = [{POSITION}]".replace("-2d", "1999-01-01"),
    "closed_at: is not after": SERVER
    + ACCOUNT
    + f"positions = [{POSITION}]".replace(" }", ', closed_at = "-3d" }'),
    "hold_s: must be less": SERVER
    + ACCOUNT
    + 'robot = { symbol = "EURUSD", volume = 1, starts_at = "-1d", period_s = 5, hold_s = 5 }',
    "$.servers[0].name: has to be a part of a path": (SERVER + ACCOUNT).replace('"S"', '"A/B"'),
    "line 2: $.servers[0].name: has": (SERVER + ACCOUNT).replace('"S"', '"A\\u0007"'),
    "line 2: $.servers[0].name: has to be": (SERVER + ACCOUNT).replace('"S"', '".."'),
    "line 7: login_rejected: login: expected int <=": SERVER
    + ACCOUNT
    + f'[[faults]]\nname = "login_rejected"\nlogin = {10**30}\n',
    "line 7: requote: times: expected int <=": SERVER
    + ACCOUNT
    + f'[[faults]]\nname = "requote"\ntimes = {10**30}\n',
    "line 7: market_closed: symbol: no symbol is named 'NOSUCH'": SERVER
    + ACCOUNT
    + '[[faults]]\nname = "market_closed"\nsymbol = "NOSUCH"\n',
    "$.accounts[0].password": SERVER + ACCOUNT.replace("secret-1", "p" * 65),
    "two positions of EURUSD": SERVER
    + ACCOUNT
    + f'margin_mode = "netting"\npositions = [{POSITION}, {POSITION}]',
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_scenario_is_refused_with_file_and_reason(
    write: Callable[..., Path], reason: str
) -> None:
    path = write(BAD[reason])
    with pytest.raises(ScenarioError) as refused:
        load(path, NOW_MS)
    assert str(refused.value).startswith(f"{path}: ")
    assert reason in str(refused.value)
    assert "secret-1" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", '{\n"servers": [,]}', "line 2 column 13"),
        ("a.json", "[" * 100_000, ""),
        ("a.yaml", "", "ends in .toml or .json"),
        ("a.json", "[]", "Expected `object`"),
        (
            "a.json",
            '{"faults": [\n{"name": "trade_refused", "symbol": "\\ud800"}]}',
            "line 2: a fault has texts of valid Unicode",
        ),
    ],
)
def test_other_files_are_refused(
    write: Callable[..., Path], name: str, text: str, reason: str
) -> None:
    with pytest.raises(ScenarioError) as refused:
        load(write(text, name), NOW_MS)
    assert reason in refused.value.reason


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load(tmp_path / "none.toml", NOW_MS)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="codec"):
        load(tmp_path / "bytes.toml", NOW_MS)


def test_json_and_toml_mean_the_same(write: Callable[..., Path]) -> None:
    toml = load(write(SERVER + ACCOUNT + f"positions = [{POSITION}]"), NOW_MS)
    text = (
        '{"servers": [{"name": "S"}], "accounts": [{"login": 1, "password": "secret-1",'
        ' "server": "S", "positions": [{"symbol": "EURUSD", "type": "buy", "volume": 1,'
        ' "opened_at": "-2d"}]}]}'
    )
    assert load(write(text, "scenario.json"), NOW_MS) == toml


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ('"2026-01-02T03:04:05Z"', 1_767_323_045_000),
        ('"2026-01-02T03:04:05.678"', 1_767_323_045_678),
        ("2026-01-02T05:04:05+02:00", 1_767_323_045_000),
        ("2026-01-02T03:04:05", 1_767_323_045_000),
        ('"-2d"', NOW_MS - NOW_MS % DAY_MS - 2 * DAY_MS),
        ('"+90m"', NOW_MS - NOW_MS % DAY_MS + 5_400_000),
    ],
)
def test_times_are_absolute_or_relative(write: Callable[..., Path], text: str, ms: int) -> None:
    position = POSITION.replace('"-2d"', text)
    scenario = load(write(SERVER + ACCOUNT + f"positions = [{position}]"), NOW_MS)
    assert scenario.accounts[0].positions[0].opened_at == Moment(ms)


def test_passwords_stay_out_of_every_repr(demo: Scenario) -> None:
    for account in demo.accounts:
        for shown in (repr(account), str(account), repr(demo)):
            assert account.password not in shown
            assert str(account.investor_password) not in shown

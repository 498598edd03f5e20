"""Reading a scenario file and refusing a bad one, with its name, the line and the reason."""

import json
import math
import re
import tomllib
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.scenario.lines import locate, steps
from terminal_sim.scenario.model import (
    Account,
    Model,
    Order,
    Position,
    Robot,
    Scenario,
    ScenarioError,
)
from terminal_sim.scenario.moments import Moment, parse
from terminal_sim.scenario.planned import PlannedFault
from terminal_sim.scenario.planned import parse as parse_fault

# 2000-01-02 and 2100-01-01: nothing can be bought outside the market's time on any clock.
_MARKET_START, _MARKET_END = 946_771_200_000, 4_102_444_800_000
# A year of trades every six seconds; their history fits into some hundred MB.
_MOST_CYCLES = 5_000_000

_PLACE = re.compile(r"^\$[^\s:`]*|(?<=- at `)\$[^`]*(?=`$)")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_LINE = re.compile(r"\bline (\d+)")
_HALF = re.compile("[\ud800-\udfff]")
# A server is managed at a path of the control API that its name is a part of.
_UNNAMEABLE = re.compile(r"[/\x00-\x1f\x7f-\x9f]|^\.{1,2}$")


def load(path: Path, start_ms: int) -> Scenario:
    """Read a scenario from a ``.toml`` or ``.json`` file.

    Args:
        path: The file.
        start_ms: When the simulator starts (UTC epoch milliseconds); relative times count from
            midnight of that day.

    Raises:
        ScenarioError: The file cannot be read, parsed or made sense of.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScenarioError(path, error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ScenarioError(path, f"line {line}: {error}") from None
    raw = _parsed(path, text)
    try:
        scenario = msgspec.convert(raw, Scenario, dec_hook=partial(_decode, start_ms=start_ms))
    except (ValueError, RecursionError) as error:
        raise _refused(path, text, str(error)) from None
    for fault in faults(scenario, start_ms):
        raise _refused(path, text, fault)
    return scenario


def _refused(path: Path, text: str, fault: str) -> ScenarioError:
    """Return the error for a fault that names its place, with the line of that place."""
    place = _PLACE.search(fault)
    keys = steps(place[0]) if place else ()
    extra = _UNKNOWN.search(fault)
    if extra:
        keys = (*keys, extra[1])
    return ScenarioError(path, f"line {locate(text, path.suffix, keys)}: {fault}")


def faults(scenario: Scenario, start_ms: int) -> Iterator[str]:
    """Yield what is wrong with a scenario that decodes; each begins with its place."""
    for i, server in enumerate(scenario.servers):
        yield from _text_faults(f"$.servers[{i}]", server)
        if _UNNAMEABLE.search(server.name):
            yield f"$.servers[{i}].name: has to be a part of a path: no slash, no control character"
        try:
            WallClock(server.clock)
        except ValueError as error:
            yield f"$.servers[{i}].clock: {error}"
    names = [server.name for server in scenario.servers]
    if len(set(names)) < len(names):
        yield "$.servers: two servers have the same name"
    held: set[tuple[int, str]] = set()
    for i, account in enumerate(scenario.accounts):
        where = f"$.accounts[{i}]"
        if account.server not in names:
            yield f"{where}.server: no server is named {account.server!r}"
        if (account.login, account.server) in held:
            yield f"{where}.login: {account.login} is already an account of {account.server}"
        held.add((account.login, account.server))
        yield from (where + fault for fault in _account_faults(account, start_ms))
    for i, planned in enumerate(scenario.faults):
        target = planned.injection.server
        if target is not None and target not in names:
            yield f"$.faults[{i}].server: no server is named {target!r}"


def _parsed(path: Path, text: str) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            return json.loads(text)
    except (ValueError, RecursionError) as error:
        named = _LINE.search(str(error))
        line = named[1] if named else text.count("\n") + 1
        raise ScenarioError(path, f"line {line}: {error}") from None
    raise ScenarioError(path, "a scenario file ends in .toml or .json")


def _decode(
    kind: type,
    value: Any,  # noqa: ANN401 - a decoder's hook
    start_ms: int,
) -> Moment | PlannedFault:
    if kind is PlannedFault:
        return parse_fault(value)
    if kind is not Moment:
        raise NotImplementedError
    try:
        return parse(value, start_ms)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _account_faults(account: Account, start_ms: int) -> Iterator[str]:
    if not account.password:
        yield ".password: is empty"
    yield from _text_faults("", account)
    yield from _time_faults("", account)
    for where, part in _parts(account):
        if part.symbol not in INSTRUMENTS:
            yield f"{where}.symbol: no symbol is named {part.symbol!r}"
        yield from _text_faults(where, part)
        yield from _time_faults(where, part)
    for i, position in enumerate(account.positions):
        if position.closed_at and position.closed_at.ms <= position.opened_at.ms:
            yield f".positions[{i}].closed_at: is not after opened_at"
    if account.robot:
        yield from _robot_faults(account.robot, start_ms)
    if account.margin_mode == "netting":
        yield from _netting_faults(account)


def _robot_faults(robot: Robot, start_ms: int) -> Iterator[str]:
    if robot.hold_s >= robot.period_s:
        yield ".robot.hold_s: must be less than period_s"
    if (start_ms - robot.starts_at.ms) / 1000 / robot.period_s > _MOST_CYCLES:
        yield f".robot.starts_at: the robot would have traded more than {_MOST_CYCLES} times"


def _parts(account: Account) -> Iterator[tuple[str, Position | Order | Robot]]:
    for i, position in enumerate(account.positions):
        yield f".positions[{i}]", position
    for i, order in enumerate(account.orders):
        yield f".orders[{i}]", order
    if account.robot:
        yield ".robot", account.robot


def _time_faults(where: str, part: Model) -> Iterator[str]:
    for name in part.__struct_fields__:
        value = getattr(part, name)
        if isinstance(value, Moment) and not _MARKET_START <= value.ms < _MARKET_END:
            yield f"{where}.{name}: the market lasts from 2000 to 2100"


def _text_faults(where: str, part: Model) -> Iterator[str]:
    """Yield texts that JSON can write and nobody can send: halves of surrogate pairs."""
    for name in part.__struct_fields__:
        value = getattr(part, name)
        if isinstance(value, str) and not value.isascii() and _HALF.search(value):
            yield f"{where}.{name}: is not valid Unicode"


def _netting_faults(account: Account) -> Iterator[str]:
    ordered = sorted(account.positions, key=lambda position: position.opened_at.ms)
    for symbol in {position.symbol for position in ordered}:
        spans = [_span(position) for position in ordered if position.symbol == symbol]
        if account.robot and account.robot.symbol == symbol:
            spans.append((account.robot.starts_at.ms, math.inf))
            spans.sort()
        if any(end > start for (_, end), (start, _) in pairwise(spans)):
            yield f".positions: a netting account holds two positions of {symbol} at once"


def _span(position: Position) -> tuple[float, float]:
    end = position.closed_at.ms if position.closed_at else math.inf
    return position.opened_at.ms, end

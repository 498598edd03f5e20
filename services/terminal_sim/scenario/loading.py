"""Reading a scenario file and refusing a bad one, with its name and the reason."""

import json
import math
import tomllib
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS
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

# 2000-01-02 and 2100-01-01: nothing can be bought outside the market's time on any clock.
_MARKET_START, _MARKET_END = 946_771_200_000, 4_102_444_800_000


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
        raw = _parsed(path)
        hook = partial(_decode, start_ms=start_ms)
        scenario = msgspec.convert(raw, Scenario, dec_hook=hook)
    except OSError as error:
        raise ScenarioError(path, error.strerror or "cannot be read") from error
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise ScenarioError(path, str(error)) from None
    for fault in faults(scenario):
        raise ScenarioError(path, fault)
    return scenario


def faults(scenario: Scenario) -> Iterator[str]:
    """Yield what is wrong with a scenario that decodes."""
    for i, server in enumerate(scenario.servers):
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
        yield from (where + fault for fault in _account_faults(account))


def _parsed(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix == ".json":
        return json.loads(text)
    raise ValueError("a scenario file ends in .toml or .json")


def _decode(kind: type, value: Any, start_ms: int) -> Moment:  # noqa: ANN401 - a decoder's hook
    if kind is not Moment:
        raise NotImplementedError
    try:
        return parse(value, start_ms)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _account_faults(account: Account) -> Iterator[str]:
    if not account.password:
        yield ".password: is empty"
    yield from _time_faults("", account)
    for where, part in _parts(account):
        if part.symbol not in INSTRUMENTS:
            yield f"{where}.symbol: no symbol is named {part.symbol!r}"
        yield from _time_faults(where, part)
    for i, position in enumerate(account.positions):
        if position.closed_at and position.closed_at.ms <= position.opened_at.ms:
            yield f".positions[{i}].closed_at: is not after opened_at"
    if account.robot and account.robot.hold_s >= account.robot.period_s:
        yield ".robot.hold_s: must be less than period_s"
    if account.margin_mode == "netting":
        yield from _netting_faults(account)


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

"""From a scenario's accounts to the accounts of a house that may have begun long ago."""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from terminal_sim.scenario.model import Account, Model, Scenario, Server
from terminal_sim.scenario.moments import Moment

# What may differ without making the account another one.
_IRRELEVANT = ("password", "investor_password", "name")


def midnight_ms(scenario: Scenario) -> int | None:
    """Return from which instant the relative times of a scenario count; None without any."""
    return next(
        (
            m.ms - m.offset_ms
            for a in scenario.accounts
            for m in _moments(a)
            if m.offset_ms is not None
        ),
        None,
    )


def counted_from(account: Account, midnight: int) -> Account:
    """Return an account with its relative times counted from another midnight."""
    again: Account = _again(account, midnight)
    return again


def mark(account: Account, ordinal: int, server: Server) -> str:
    """Return what tells an account's past from any other: equal marks, equal pasts."""
    plain = replace(account, **dict.fromkeys(_IRRELEVANT, ""))
    text = msgspec.json.encode((plain, ordinal, server), enc_hook=lambda moment: moment.ms)
    return hashlib.sha256(text).hexdigest()


def _moments(part: Model) -> Iterator[Moment]:
    for value in _values(part):
        if isinstance(value, Moment):
            yield value
        elif isinstance(value, Model):
            yield from _moments(value)
        elif isinstance(value, tuple):
            for each in value:
                yield from _moments(each)


def _values(part: Model) -> Iterator[Any]:
    return (getattr(part, name) for name in part.__struct_fields__)


def _again(part: Any, midnight: int) -> Any:  # noqa: ANN401 - any field of a scenario
    if isinstance(part, Moment):
        return part.counted_from(midnight)
    if isinstance(part, tuple):
        return tuple(_again(each, midnight) for each in part)
    if isinstance(part, Model):
        fields = part.__struct_fields__
        return replace(part, **{name: _again(getattr(part, name), midnight) for name in fields})
    return part

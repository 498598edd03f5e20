"""What faults there are, told from their types and docstrings."""

import inspect
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect as types

from terminal_sim.faults.injection import BROKER_KINDS, TERMINAL_KINDS, parameters
from terminal_sim.faults.kinds import Fault

_PRACTICE = "In practice:"


class Parameter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parameter of a fault.

    Attributes:
        type: What it takes, in words.
        default: What it is when it is not given.
        required: It has to be given.
    """

    type: str
    default: Any = None
    required: bool = False


class Description(msgspec.Struct, frozen=True):
    """A fault as a person is told about it.

    Attributes:
        name: What to ask for.
        scope: ``terminal`` or ``broker``.
        parameters: By their names.
        what: What it does.
        in_practice: What in the world breaks like that.
    """

    name: str
    scope: str
    parameters: dict[str, Parameter]
    what: str
    in_practice: str


def descriptions() -> tuple[Description, ...]:
    """Describe every fault, those of terminals first."""
    scopes = ("terminal", TERMINAL_KINDS), ("broker", BROKER_KINDS)
    return tuple(
        _describe(name, scope, kind) for scope, kinds in scopes for name, kind in kinds.items()
    )


def markdown() -> str:
    """Return the table of all faults that FAULTS.md holds."""
    rows = [
        f"| `{each.name}` | {each.scope} | {_cell(each)} | {each.what} | {each.in_practice} |"
        for each in descriptions()
    ]
    head = "| name | scope | parameters | what happens | what it stands for |"
    return "\n".join((head, "|---|---|---|---|---|", *rows)) + "\n"


def _cell(described: Description) -> str:
    return "<br>".join(
        f"`{name}` {each.type.replace('|', chr(92) + '|')}"
        + ("" if each.required else f" ({shown(each.default)})")
        for name, each in described.parameters.items()
    )


def shown(value: object) -> str:
    """Write a default as it would be typed."""
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "all"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _describe(name: str, scope: str, kind: type[Fault]) -> Description:
    paragraphs = [" ".join(each.split()) for each in _text(kind).split("\n\n")]
    practice = next(each for each in paragraphs if each.startswith(_PRACTICE))
    what = " ".join(each for each in paragraphs if each != practice)
    return Description(
        name,
        scope,
        dict(_parameters(kind)),
        what.replace("``", "`"),
        practice.removeprefix(_PRACTICE).strip().replace("``", "`"),
    )


def _text(kind: type[Fault]) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def _parameters(kind: type[Fault]) -> Iterator[tuple[str, Parameter]]:
    info = types.type_info(kind)
    if not isinstance(info, types.StructType):
        raise TypeError(kind)
    fields = {field.name: field for field in info.fields}
    for name in parameters(kind):
        field = fields[name]
        default = None if field.required else field.default
        yield name, Parameter(_words(field.type), default, field.required)


def _words(kind: types.Type) -> str:
    if isinstance(kind, types.LiteralType):
        return "|".join(map(str, kind.values))
    if isinstance(kind, types.UnionType):
        return " or ".join(_words(each) for each in kind.types)
    if isinstance(kind, types.VarTupleType):
        return "names of functions"
    if isinstance(kind, (types.IntType, types.FloatType)):
        return _number(kind)
    return {types.StrType: "text", types.NoneType: "none"}[type(kind)]


def _number(kind: types.IntType | types.FloatType) -> str:
    words = ["whole number" if isinstance(kind, types.IntType) else "number"]
    bounds = ("above", kind.gt), ("from", kind.ge), ("to", kind.le)
    words += [f"{word} {bound}" for word, bound in bounds if bound is not None]
    return " ".join(words)

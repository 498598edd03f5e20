"""080-119: the constants, in the groups of MetaTrader's documentation."""

import json

from tests.contract.case import API, CONSTANTS, Case
from tests.contract.catalogue import Need, family, row
from tests.contract.clients import StockClient

# Absent from builds of the module before the newest.
NEW = frozenset(API["new_since_5_0_36"])


def held(case: Case) -> dict[str, int]:
    """Every whole number that the module holds."""
    text = "__import__('json').dumps({k: v for k, v in vars(mt5).items() if type(v) is int})"
    found: dict[str, int] = json.loads(case.mt5.eval(text))
    return found


@family(80, "constants: {}", API["groups"], Need.MODULE)
def values(case: Case, group: str) -> None:
    found = held(case)
    for name in API["groups"][group]:
        if name in found or name not in NEW:
            assert found.get(name) == CONSTANTS[name], name


@row(110, "there are these 223 constants and no others", Need.MODULE)
def all_of_them(case: Case) -> None:
    grouped = [name for names in API["groups"].values() for name in names]
    assert len(CONSTANTS) == 223
    assert sorted(grouped) == sorted(CONSTANTS)
    found = {name for name in held(case) if name.isupper() and not name.startswith("_")}
    assert found - set(CONSTANTS) == set()
    assert set(CONSTANTS) - found <= NEW


@row(111, "mt5linux's copies of the constants have the module's values", Need.MODULE)
def copies(case: Case) -> None:
    assert isinstance(case.client, StockClient)
    found = held(case)
    # 1.0.3 is older than ORDER_FILLING_BOC.
    for name in CONSTANTS.keys() - NEW:
        assert getattr(case.mt5, name) == found[name] == CONSTANTS[name], name


@row(112, "all 32 functions and the package's helpers are there", Need.MODULE, core=True)
def functions(case: Case) -> None:
    for name in (*API["functions"], *API["python_helpers"]):
        assert case.mt5.eval(f"callable(getattr(mt5, {name!r}, None))"), name

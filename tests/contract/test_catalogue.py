"""The catalogue itself: whole, numbered once, and shown in the document."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
from tests.contract.case import API, CONSTANTS, STRUCTS, Case
from tests.contract.catalogue import Need, row, rows
from tests.contract.matrix import CLIENTS, expressible, refuse_real_money
from tests.contract.report import ROOMS, markdown, summary
from tests.contract.targets import real

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
ROWS = Path(__file__).with_name("rows")
ENVIRONMENT = {
    "MT5_CONTRACT_HOST": "terminal",
    "MT5_CONTRACT_PORT": "8001",
    "MT5_CONTRACT_LOGIN": "7",
    "MT5_CONTRACT_PASSWORD": "not-shown",
    "MT5_CONTRACT_SERVER": "S",
}


def test_a_number_is_given_once() -> None:
    taken = next(rows())
    with pytest.raises(ValueError, match=f"row {taken.label} is there twice"):
        row(taken.number, "again")(lambda case: None)


def test_every_row_has_a_client_and_a_chapter() -> None:
    for entered in rows():
        assert any(expressible(entered, client) for client in CLIENTS), entered.label
        assert entered.room in ROOMS, entered.label


def test_every_function_and_struct_is_in_a_row() -> None:
    files = (*ROWS.glob("*.py"), ROWS.with_name("trading.py"), ROWS.with_name("case.py"))
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    source = "".join(source.replace("{kind}", kind) for kind in ("deals", "orders"))
    for name in API["functions"]:
        assert re.search(rf'\b{name}\(|"{name}"', source), name
    titles = " ".join(entered.title for entered in rows())
    for name in STRUCTS:
        assert name in titles, name


def test_every_timeframe_has_a_row() -> None:
    titles = [entered.title for entered in rows() if entered.room == "rates"]
    names = [name for name in API["constants"] if name.startswith("TIMEFRAME_")]
    assert len(names) == 21
    for name in names:
        assert any(f"bars of {name} " in title for title in titles), name


def test_the_document_lists_these_rows() -> None:
    """Write it anew with `pytest tests/contract --conformance-report docs/conformance.md`."""
    shown = re.findall(
        r"^\| (\d{3}) \| (.*?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    )
    fresh = re.findall(r"^\| (\d{3}) \| (.*?) \|", markdown({}), re.MULTILINE)
    assert shown == fresh
    assert len(fresh) == len(list(rows()))


def test_the_summary_says_what_was_skipped_and_why() -> None:
    outcomes = {
        ("016", "mt5linux"): "passed",
        ("016", "agent"): "failed",
        ("400", "mt5linux"): "needs trading",
        ("400", "agent"): "needs trading",
    }
    first, second, last = summary(outcomes)
    assert first.startswith("mt5linux: 1 rows passed, 0 failed, 1 skipped")
    assert second.startswith("agent: 0 rows passed, 1 failed, 1 skipped")
    assert last == "skipped, needs trading: 400-agent 400-mt5linux"


def test_a_failure_shows_in_the_document() -> None:
    document = markdown({("016", "mt5linux"): "passed", ("016", "agent"): "failed"})
    line = next(line for line in document.splitlines() if line.startswith("| 016 "))
    assert line.endswith("| yes | failed |")


def test_a_real_terminal_is_traded_on_only_when_told() -> None:
    assert real(ENVIRONMENT).has == frozenset()
    allowed = real(ENVIRONMENT | {"MT5_CONTRACT_TRADE": "1", "MT5_CONTRACT_INVESTOR": "view"})
    assert allowed.has == {Need.TRADING, Need.INVESTOR}
    assert not allowed.simulated
    assert "not-shown" not in repr(allowed)


@pytest.mark.parametrize("mode", ["DEMO", "CONTEST", "REAL"])
def test_real_money_is_never_traded(mode: str) -> None:
    class Client:
        def account(self) -> dict[str, int]:
            return {"trade_mode": CONSTANTS[f"ACCOUNT_TRADE_MODE_{mode}"]}

    case = Case(real(ENVIRONMENT), cast("Any", Client()), None)
    if mode != "REAL":
        refuse_real_money(case)
        return
    with pytest.raises(pytest.fail.Exception, match="real money"):
        refuse_real_money(case)


def test_rows_that_move_money_or_send_orders_need_leave() -> None:
    """No row may trade on a real account without the trading need."""
    for path in ROWS.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        for declared, body in re.findall(
            r"(@(?:row|family)\(.*?)\ndef \w+\((.*?)(?=\n@|\Z)", source, re.DOTALL
        ):
            if re.search(r"\b(done|send|opened|placed|refused)\(", body):
                assert "TRADING" in declared or "NEEDS" in declared or "TWO" in declared, body

"""180-199: symbols and their last ticks."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from tests.contract.case import SUCCESS, Case
from tests.contract.catalogue import Need, family, row

# The simulated market never rests: its newest tick is younger than this.
STALE_S = 5.0


def simulated_now() -> float:
    """Wall-clock seconds of the simulated server, whose clock is seven hours before New York's."""
    there = datetime.now(ZoneInfo("America/New_York")) + timedelta(hours=7)
    return there.replace(tzinfo=UTC).timestamp()


@row(180, "symbols_get() lists every symbol, symbols_total() counts them", Need.MODULE)
def listed(case: Case) -> None:
    names = list(case.mt5.eval("[s.name for s in mt5.symbols_get()]"))
    assert case.mt5.symbols_total() == len(names) == len(set(names))
    assert case.target.symbol in names


@row(181, "symbols_get() finds by group, named or not", Need.MODULE)
def grouped(case: Case) -> None:
    names = list(case.mt5.eval("[s.name for s in mt5.symbols_get()]"))
    dollars = [name for name in names if "USD" in name and not name.startswith("EUR")]
    for argument in ("'*USD*,!EUR*'", "group='*USD*,!EUR*'"):
        assert list(case.mt5.eval(f"[s.name for s in mt5.symbols_get({argument})]")) == dollars
    symbol = case.target.symbol
    assert [found.name for found in case.mt5.symbols_get(group=symbol)] == [symbol]


@row(182, "symbols_get() of a group without members is an empty tuple", Need.MODULE)
def no_members(case: Case) -> None:
    assert case.mt5.symbols_get("NOSUCH*") == ()
    assert case.mt5.last_error() == SUCCESS


@row(183, "symbol_info() is of the symbol and makes sense", Need.MODULE, core=True)
def info(case: Case) -> None:
    found = case.mt5.symbol_info(case.target.symbol)
    assert found.name == case.target.symbol
    assert found.point == pytest.approx(10**-found.digits)
    assert 0 < found.bidlow <= found.bid <= found.bidhigh
    assert found.bid < found.ask
    assert 0 < found.volume_min <= found.volume_max
    assert found.volume_step > 0
    assert found.trade_contract_size > 0


@row(184, "symbol_info_tick() is of now, with a bid below its ask", Need.MODULE, core=True)
def tick(case: Case) -> None:
    before = simulated_now()
    found = case.mt5.symbol_info_tick(case.target.symbol)
    if case.target.simulated:  # at a broker the market may be closed
        assert before - STALE_S < found.time_msc / 1000 <= simulated_now()
    assert found.time == found.time_msc // 1000
    assert 0 < found.bid < found.ask


@row(185, "ticks do not go back", Need.MODULE)
def ticks_ascend(case: Case) -> None:
    times = [case.mt5.symbol_info_tick(case.target.symbol).time_msc for _ in range(20)]
    assert times == sorted(times)


@family(
    186, "{} of an unknown symbol is None and -4", ("symbol_info", "symbol_info_tick"), Need.MODULE
)
def unknown(case: Case, call: str) -> None:
    case.refuses(f"{call}('NOSUCH')", "RES_E_NOT_FOUND")


@row(188, "symbol_select() shows a symbol and says whether it worked", Need.MODULE)
def select(case: Case) -> None:
    assert case.mt5.symbol_select(case.target.symbol, True) is True
    assert case.mt5.symbol_info(case.target.symbol).select is True
    assert case.mt5.symbol_select("NOSUCH", True) is False
    assert case.error() < 0


@row(189, "a symbol with a position cannot be hidden", Need.MODULE)
def not_hidden(case: Case) -> None:
    held = next((row["symbol"] for row in case.client.positions()), None)
    assert case.mt5.symbol_select(held or case.lacks("position"), False) is False


@row(190, "a hidden symbol is not shown until it is selected again", Need.CONTROL, Need.MODULE)
def hidden(case: Case) -> None:
    assert case.mt5.symbol_select("NZDUSD", False) is True
    assert case.mt5.symbol_info("NZDUSD").select is False
    assert case.mt5.symbol_select("NZDUSD") is True
    assert case.mt5.symbol_info("NZDUSD").select is True

"""Depth of market: a ladder around every tick."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terminal_sim.catalogue import catalogue
from terminal_sim.market.depth import LEVELS, levels
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.prices import Market
from terminal_sim.market.tape import Quote, Tape

SELL, BUY = (catalogue().constants[f"BOOK_TYPE_{side}"] for side in ("SELL", "BUY"))
SYMBOLS = st.sampled_from(sorted(INSTRUMENTS))
INSTANTS = st.integers(978_307_200_000, 4_000_000_000_000)
BOUNDED = settings(max_examples=60)
MARKET = Market(3)


@BOUNDED
@given(SYMBOLS, INSTANTS)
def test_the_ladder_descends_through_the_tick(symbol: str, at_ms: int) -> None:
    quote = Tape(MARKET).at(symbol, at_ms)
    rows = levels(MARKET, symbol, quote)
    assert [row.type for row in rows] == [SELL] * LEVELS + [BUY] * LEVELS
    assert all(above.price > below.price for above, below in pairwise(rows))
    assert rows[LEVELS - 1].price == quote.ask
    assert rows[LEVELS].price == quote.bid
    assert rows[-1].price > 0
    digits = INSTRUMENTS[symbol].digits
    assert all(row.price == round(row.price, digits) for row in rows)
    assert quote.ask < rows[0].price < 1.05 * quote.ask


@BOUNDED
@given(SYMBOLS, INSTANTS)
def test_volumes_are_whole_lots_and_grow_behind_the_best_price(symbol: str, at_ms: int) -> None:
    rows = levels(MARKET, symbol, Tape(MARKET).at(symbol, at_ms))
    volumes = [row.volume for row in rows]
    assert all(volume == int(volume) >= 1 for volume in volumes)
    assert max(volumes) < 100 * INSTRUMENTS[symbol].volumes[1]
    assert volumes[0] > volumes[LEVELS - 1]
    assert volumes[-1] > volumes[LEVELS]


@BOUNDED
@given(SYMBOLS, INSTANTS)
def test_every_process_with_the_seed_sees_the_same(symbol: str, at_ms: int) -> None:
    quote = Tape(MARKET).at(symbol, at_ms)
    assert levels(MARKET, symbol, quote) == levels(Market(3), symbol, quote)
    other = levels(Market(4), symbol, quote)
    assert [row.volume for row in other] != [row.volume for row in levels(MARKET, symbol, quote)]


def test_the_next_tick_has_another_depth() -> None:
    quote = Tape(MARKET).at("EURUSD", 1_790_000_000_000)
    later = Quote(quote.time_msc + 1, quote.bid, quote.ask)
    one, two = levels(MARKET, "EURUSD", quote), levels(MARKET, "EURUSD", later)
    assert [row.volume for row in one] != [row.volume for row in two]
    assert [row.volume for row in one[:LEVELS]] != [row.volume for row in reversed(one[LEVELS:])]


def test_an_unknown_symbol_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        levels(MARKET, "NOPE", Quote(1, 1.0, 1.1))

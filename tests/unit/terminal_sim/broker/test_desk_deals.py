"""What deals do to accounts of both kinds."""

import pytest
from msgspec.structs import replace
from tests.unit.terminal_sim.broker.trading import DAY_MS, NOW_MS, Trading

from terminal_sim.broker import codes
from terminal_sim.broker.values import Terms, TradeRequest
from terminal_sim.market.instruments import INSTRUMENTS


def test_a_market_order_gets_the_markets_price_and_leaves_order_and_deal() -> None:
    trading = Trading()
    trading.market(1, magic=9, comment="x" * 40, sl=0.9, tp=1.9)
    quote = trading.quote("EURUSD")
    (position,) = trading.state.positions.values()
    (deal,), (order,) = trading.deals, trading.done
    assert position.ticket == position.identifier == order.ticket == deal.order == deal.position_id
    assert order.position_id == order.ticket != deal.ticket
    assert position.price_open == deal.price == order.price_open == quote.ask
    assert (position.sl, position.tp, position.magic) == (0.9, 1.9, 9)
    assert position.comment == deal.comment == order.comment == "x" * 31
    assert (deal.type, deal.entry, deal.reason) == (0, 0, 3)
    assert (order.type, order.state, order.volume_current) == (0, codes.ORDER_STATE_FILLED, 0)
    assert position.opened_ms == deal.time_ms == order.done_ms == NOW_MS
    assert trading.market(-1, "USDJPY") == 10009
    assert trading.deals[-1].price == trading.quote("USDJPY").bid


def test_a_hedging_account_holds_both_directions_and_closes_by_ticket() -> None:
    trading = Trading()
    trading.market(1, volume=0.3)
    trading.market(-1, volume=0.3)
    bought, sold = trading.state.positions.values()
    assert (bought.sign, sold.sign) == (1, -1)
    trading.now_ms += 5000
    assert trading.market(-1, volume=0.1, position=bought.ticket) == 10009
    left = trading.state.positions[bought.ticket]
    assert (left.volume, left.price_open, left.identifier) == (0.2, bought.price_open, 1000)
    assert (left.opened_ms, left.updated_ms) == (NOW_MS, NOW_MS + 5000)
    deal = trading.deals[-1]
    assert (deal.type, deal.entry, deal.volume) == (1, codes.DEAL_ENTRY_OUT, 0.1)
    assert deal.profit == round((deal.price - bought.price_open) * 0.1 * 100_000, 2)
    assert deal.position_id == bought.identifier
    assert left.margin == pytest.approx(bought.margin * 2 / 3, abs=0.005)
    assert trading.market(-1, volume=0.2, position=bought.ticket) == 10009
    assert trading.market(1, volume=0.3, position=sold.ticket) == 10009
    assert not trading.state.positions
    assert trading.value().equity == trading.state.balance != trading.deposit


def test_a_netting_position_grows_with_the_average_price() -> None:
    trading = Trading("netting")
    trading.market(1, volume=0.1, sl=0.8)
    first = trading.quote("EURUSD").ask
    trading.now_ms += 60_000
    trading.market(1, volume=0.3, tp=1.9)
    second = trading.quote("EURUSD").ask
    (position,) = trading.state.positions.values()
    assert position.volume == 0.4
    assert position.price_open == pytest.approx((first + 3 * second) / 4, abs=1e-9)
    assert (position.sl, position.tp) == (0.8, 1.9)
    assert (position.ticket, position.opened_ms) == (1000, NOW_MS)
    assert trading.deals[-1].position_id == 1000
    assert trading.deals[-1].entry == codes.DEAL_ENTRY_IN
    assert position.margin == pytest.approx(
        sum(0.4 * 100_000 / 100 * share for share in (0.25 * first, 0.75 * second)), rel=1e-3
    )


def test_a_netting_position_is_reduced_closed_and_turned_round() -> None:
    trading = Trading("netting")
    trading.market(1, volume=0.3)
    trading.market(-1, volume=0.1)
    assert trading.deals[-1].entry == codes.DEAL_ENTRY_OUT
    assert next(iter(trading.state.positions.values())).volume == 0.2
    opened = next(iter(trading.state.positions.values())).price_open
    trading.now_ms += 1000
    trading.market(-1, volume=0.5)
    (position,) = trading.state.positions.values()
    deal, order = trading.deals[-1], trading.done[-1]
    assert (deal.entry, deal.volume) == (codes.DEAL_ENTRY_INOUT, 0.5)
    assert deal.profit == round((deal.price - opened) * 0.2 * 100_000, 2)
    assert (position.sign, position.volume, position.price_open) == (-1, 0.3, deal.price)
    assert (position.ticket, position.identifier) == (order.ticket, 1000)
    assert deal.position_id == order.position_id == 1000
    assert trading.market(1, volume=0.4, position=position.ticket) == 10038
    assert trading.market(1, volume=0.3) == 10009
    assert not trading.state.positions
    assert trading.send(action=6, symbol="EURUSD", sl=0.8) == 10036


def test_what_is_left_of_a_netting_position_holds_its_share_of_the_margin() -> None:
    trading = Trading("netting")
    trading.market(1, volume=0.4)
    whole = trading.value().margin
    trading.market(-1, volume=0.1)
    assert trading.value().margin == pytest.approx(whole * 3 / 4, abs=0.005)


def test_netting_stops_are_set_by_symbol() -> None:
    trading = Trading("netting")
    trading.market(-1)
    assert trading.send(action=6, symbol="EURUSD", sl=1.9, tp=0.8) == 10009
    (position,) = trading.state.positions.values()
    assert (position.sl, position.tp) == (1.9, 0.8)


def test_commission_is_taken_with_each_deal() -> None:
    trading = Trading(terms=Terms("Tests", "Tests Ltd", 7, "EET-US", commission=3.5))
    trading.market(1, volume=0.5)
    assert trading.deals[-1].commission == -1.75
    assert trading.state.balance == trading.deposit - 1.75
    (ticket,) = trading.state.positions
    trading.market(-1, volume=0.2, position=ticket)
    assert trading.deals[-1].commission == -0.7
    profit = trading.deals[-1].profit
    assert trading.state.balance == round(trading.deposit - 2.45 + profit, 2)


def test_swap_is_paid_in_proportion_to_what_is_closed() -> None:
    trading = Trading()
    trading.market(1, volume=0.3)
    (ticket,) = trading.state.positions
    for day in range(3):
        trading.roll(NOW_MS + 1 + day * DAY_MS)
    trading.now_ms += 3 * DAY_MS
    swap = trading.state.positions[ticket].swap
    assert swap == round(5 * 0.3 * INSTRUMENTS["EURUSD"].swaps[0], 2)
    trading.market(-1, volume=0.1, position=ticket)
    assert trading.deals[-1].swap == round(swap / 3, 2)
    assert trading.state.positions[ticket].swap == round(swap - trading.deals[-1].swap, 2)
    trading.market(-1, volume=0.2, position=ticket)
    assert trading.deals[-1].swap + trading.deals[-2].swap == pytest.approx(swap, abs=1e-9)


def test_profit_is_in_the_currency_of_the_account() -> None:
    trading = Trading(currency="EUR")
    trading.market(-1, "USDJPY", 1.0)
    (position,) = trading.state.positions.values()
    trading.now_ms += 60_000
    trading.market(1, "USDJPY", 1.0, position=position.ticket)
    yen = (position.price_open - trading.quote("USDJPY").ask) * 100_000
    dollars = yen / trading.quote("USDJPY").bid
    assert trading.deals[-1].profit == round(dollars / trading.quote("EURUSD").bid, 2)


def test_whole_positions_can_be_closed_whatever_the_steps_of_volume() -> None:
    trading = Trading(balance=1e9)
    trading.market(1, volume=0.02)
    (position,) = trading.state.positions.values()
    trading.state.positions[position.ticket] = replace(position, volume=0.0153)
    assert trading.market(-1, volume=0.005, position=position.ticket) == 10014
    assert trading.market(-1, volume=0.0153, position=position.ticket) == 10009
    assert not trading.state.positions


def test_a_close_needs_no_money_though_it_may_need_more_margin() -> None:
    trading = Trading(balance=3000.0)
    trading.market(1, volume=1.0)
    trading.market(-1, volume=1.0)
    bought, sold = trading.state.positions.values()
    # As if they had been opened at very different prices: together they hold the average.
    trading.state.positions[bought.ticket] = replace(bought, margin=100.0)
    trading.state.positions[sold.ticket] = replace(sold, margin=2000.0)
    trading.state.balance = -1e6
    trading.state.version += 1
    before = trading.value().margin
    assert trading.market(1) == 10019
    assert trading.market(-1, volume=1.0, position=bought.ticket) == 10009
    assert trading.value().margin == 2000 > before


def test_the_reason_of_a_person_elsewhere_is_kept() -> None:
    trading = Trading()
    request = TradeRequest(action=1, symbol="EURUSD", volume=0.1)
    assert trading.ask(request, reason=1) == 10009
    (position,) = trading.state.positions.values()
    assert position.reason == trading.deals[0].reason == trading.done[0].reason == 1

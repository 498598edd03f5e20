"""TradeDeal rows, and TradeOrder rows of pending and of done orders."""

from collections.abc import Callable, Sequence

import numpy as np

from terminal_sim.broker.values import Deal, Order
from terminal_sim.market.clocks import WallClock
from terminal_sim.module.structs import StructSequence, maker

Rows = tuple[StructSequence, ...]
# Bought at the ask, sold at the bid: even order types buy.
_SELLS = 1


def deals(rows: Sequence[Deal], wall: WallClock) -> Rows:
    """Return TradeDeal rows, with the wall clock's reading of each deal's instant."""
    msc = _walls(wall, [deal.time_ms for deal in rows])
    make = maker("TradeDeal")
    return tuple(
        make(
            (
                deal.ticket,
                deal.order,
                at // 1000,
                at,
                deal.type,
                deal.entry,
                deal.magic,
                deal.position_id,
                deal.reason,
                deal.volume,
                deal.price,
                deal.commission,
                deal.swap,
                deal.profit,
                deal.fee,
                deal.symbol,
                deal.comment,
                "",
            )
        )
        for deal, at in zip(rows, msc, strict=True)
    )


def orders(
    rows: Sequence[Order],
    wall: WallClock,
    price: Callable[[Order], float] = lambda order: order.price_current,
) -> Rows:
    """Return TradeOrder rows.

    Args:
        rows: Pending or done orders.
        wall: The server's clock.
        price: Gives ``price_current``.
    """
    setup = _walls(wall, [order.setup_ms for order in rows])
    done = _walls(wall, [order.done_ms for order in rows])
    expires = _walls(wall, [order.expires_ms for order in rows])
    make = maker("TradeOrder")
    return tuple(
        make(
            (
                order.ticket,
                placed // 1000,
                placed,
                ended // 1000,
                ended,
                expiry // 1000,
                order.type,
                order.type_time,
                order.type_filling,
                order.state,
                order.magic,
                order.position_id,
                0,
                order.reason,
                order.volume_initial,
                order.volume_current,
                order.price_open,
                order.sl,
                order.tp,
                price(order),
                0.0,
                order.symbol,
                order.comment,
                "",
            )
        )
        for order, placed, ended, expiry in zip(rows, setup, done, expires, strict=True)
    )


def buys(order: Order) -> bool:
    """Tell whether an order would be filled at the ask."""
    return order.type % 2 != _SELLS


def _walls(wall: WallClock, instants: list[int]) -> list[int]:
    """Return readings of the wall clock; 0, which means never, stays 0."""
    utc = np.array(instants, np.int64)
    walls: list[int] = np.where(utc == 0, 0, wall.walls_ms(utc)).tolist()
    return walls

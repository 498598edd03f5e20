"""An account's present: the same object at the broker and in every terminal that shows it."""

from terminal_sim.broker.values import Change, Deal, Order, Position, Profile
from terminal_sim.catalogue import catalogue
from terminal_sim.market.money import decimals


class AccountState:
    """What an account holds now; it changes only by :meth:`apply`.

    Attributes:
        profile: What does not change.
        positions: Open ones by ticket, in the order they were opened.
        orders: Pending ones by ticket, in the order they were placed.
        balance: Sum of all deals but those of credit.
        credit: Sum of the deals of credit.
        version: Counts the changes applied.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        positions: tuple[Position, ...] = (),
        orders: tuple[Order, ...] = (),
        balance: float = 0.0,
        credit: float = 0.0,
        version: int = 0,
    ) -> None:
        self.profile = profile
        self.digits = decimals(profile.currency)
        self.positions = {position.ticket: position for position in positions}
        self.orders = {order.ticket: order for order in orders}
        self.balance = balance
        self.credit = credit
        self.version = version

    def apply(self, change: Change) -> None:
        """Take a change over.

        Raises:
            KeyError: It removes what is not there: the state is not the one it was made for.
        """
        for ticket in change.gone:
            del self.positions[ticket]
        for position in change.positions:
            self.positions[position.ticket] = position
        for ticket in change.removed:
            del self.orders[ticket]
        for order in change.orders:
            self.orders[order.ticket] = order
        for deal in change.deals:
            self._book(deal)
        self.version += 1

    def _book(self, deal: Deal) -> None:
        amount = deal.profit + deal.swap + deal.commission + deal.fee
        if deal.type == catalogue().constants["DEAL_TYPE_CREDIT"]:
            self.credit = round(self.credit + amount, self.digits)
        else:
            self.balance = round(self.balance + amount, self.digits)

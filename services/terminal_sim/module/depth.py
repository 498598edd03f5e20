"""market_book_*."""

from terminal_sim.market.depth import levels
from terminal_sim.module.arguments import refusal, text
from terminal_sim.module.entry import entry
from terminal_sim.module.quotes import known
from terminal_sim.module.structs import StructSequence, maker
from terminal_sim.terminal.session import Terminal


class DepthFunctions:
    """Functions that read the depth of market.

    Args:
        terminal: The terminal they act on.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    @entry(failure=False, arity=1)
    def market_book_add(self, symbol: object) -> bool:
        """Subscribe to the depth of market of a symbol."""
        name = text("symbol", symbol)
        self.terminal.account()
        self.terminal.books.add(known(name))
        return True

    @entry(arity=1)
    def market_book_get(self, symbol: object) -> tuple[StructSequence, ...]:
        """Return the depth of market of a symbol that is subscribed to, highest price first."""
        name = text("symbol", symbol)
        session = self.terminal.account()
        if known(name) not in self.terminal.books:
            raise refusal("RES_E_NOT_FOUND")
        quote = session.tape.at(name, session.now_ms())
        rows = levels(session.tape.market, name, quote)
        make = maker("BookInfo")
        return tuple(make((kind, price, int(volume), volume)) for kind, price, volume in rows)

    @entry(failure=False, arity=1)
    def market_book_release(self, symbol: object) -> bool:
        """End a subscription."""
        name = text("symbol", symbol)
        self.terminal.account()
        if known(name) not in self.terminal.books:
            raise refusal("RES_E_NOT_FOUND")
        self.terminal.books.remove(name)
        return True

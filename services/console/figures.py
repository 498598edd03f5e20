"""Numbers as people read them: grouped thousands, fixed digits, a real minus sign."""

from typing import Final

MINUS: Final = "\N{MINUS SIGN}"
NOTHING: Final = "\N{EN DASH}"
# No symbol of a broker has more; what a float shows beyond is noise.
MOST_DIGITS: Final = 8


def money(amount: float, digits: int, *, signed: bool = False) -> str:
    """`1,234.50`; with `signed` a plus too, and no sign on what rounds to zero."""
    text = f"{abs(amount):,.{digits}f}"
    if not text.strip("0.,"):
        return text
    if amount < 0:
        return f"{MINUS}{text}"
    return f"+{text}" if signed else text


def percent(share: float) -> str:
    """`1,234.56 %` of a share in percent."""
    return f"{share:,.2f} %"


def decimals(number: float) -> int:
    """How many decimals a number shows, at most `MOST_DIGITS`."""
    return len(f"{number:.{MOST_DIGITS}f}".rstrip("0").partition(".")[2])


def volume(lots: float) -> str:
    """Lots with two decimals, or more where it has more."""
    return f"{lots:.{max(decimals(lots), 2)}f}"


def age(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `2 h`: how long ago something was."""
    if seconds < 10:  # noqa: PLR2004 - below ten seconds tenths are worth showing
        return f"{max(seconds, 0.0):.1f} s"
    for limit, unit, length in ((60, "s", 1), (3600, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds // 86400:.0f} d"


class PriceDigits:
    """Decimals of each symbol's prices: the most seen so far, so that columns keep still."""

    def __init__(self) -> None:
        self._digits: dict[str, int] = {}

    def learn(self, symbol: str, *prices: float) -> None:
        """Take note of prices of a symbol."""
        most = max((decimals(price) for price in prices), default=0)
        self._digits[symbol] = max(self._digits.get(symbol, 0), most)

    def show(self, symbol: str, price: float) -> str:
        """A price; a dash where there is none."""
        return f"{price:,.{self._digits.get(symbol, 0)}f}" if price else NOTHING

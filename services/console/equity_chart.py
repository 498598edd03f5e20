"""The equity line: a chart that gets points, not a new drawing."""

import json
from collections.abc import Sequence
from typing import Final

from nicegui import ui

Point = tuple[int, float]
"""(epoch milliseconds, equity)."""

# Two points a second are as many as the eye follows; ten minutes of them are a readable line.
LEAST_STEP_MS: Final = 500
MOST_POINTS: Final = 1200
# A quiet account's line still moves on.
QUIET_STEP_MS: Final = 2000
# Of an empty line, before the account's currency is known.
DEFAULT_DIGITS: Final = 2


class EquityTrace:
    """Chooses which figures become points. Times always grow."""

    def __init__(self) -> None:
        self._last: Point | None = None

    def offer(self, at_ms: int, equity: float, now_ms: int) -> Point | None:
        """The point to draw for the newest figures, if one is due.

        Args:
            at_ms: The figures' instant.
            equity: Of them.
            now_ms: Now; a quiet line is drawn on to here.
        """
        if self._last is None:
            self._last = (at_ms, equity)
            return self._last
        last_ms, last_equity = self._last
        if equity != last_equity and at_ms >= last_ms + LEAST_STEP_MS:
            self._last = (at_ms, equity)
            return self._last
        if now_ms >= last_ms + QUIET_STEP_MS:
            self._last = (now_ms, equity)
            return self._last
        return None


class EquityChart:
    """The chart itself; colours come from the page's style sheet, see `console.js`."""

    def __init__(self) -> None:
        self._chart = ui.echart(_options()).classes("equity-chart")
        self._chart.props["data-testid"] = "equity-chart"

    def append(self, points: Sequence[Point]) -> None:
        """Add points at the right end; the oldest beyond the bound fall off."""
        self._call("append", json.dumps(points), str(MOST_POINTS))

    def clear(self, digits: int) -> None:
        """Begin an empty line of an account whose money has so many digits."""
        self._call("clear", str(digits))

    def _call(self, name: str, *arguments: str) -> None:
        listed = ", ".join((str(self._chart.id), *arguments))
        self._chart.client.run_javascript(f"mt5Console.equity.{name}({listed})")


def _options() -> dict[str, object]:
    return {
        "animation": False,
        "grid": {"left": 4, "right": 8, "top": 12, "bottom": 4, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {
            "type": "time",
            "splitNumber": 6,
            "minInterval": 1000,
            "axisLabel": {"hideOverlap": True, "formatter": "{HH}:{mm}:{ss}"},
        },
        "yAxis": {"type": "value", "scale": True, "splitNumber": 4, "position": "right"},
        "series": [
            {
                "id": "equity",
                "name": "Equity",
                "type": "line",
                "showSymbol": False,
                "data": [],
                "lineStyle": {"width": 2},
                "areaStyle": {"opacity": 0.08},
            }
        ],
    }

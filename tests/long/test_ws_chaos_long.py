"""The storm of `test_ws_chaos`, for minutes."""

from pathlib import Path

import pytest
from tests.watch_chaos import weather_a_watched_storm
from tests.watch_habits import CALM, RESTLESS, RUDE, SLOW, VERY_SLOW

ROUNDS = 12


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_long_storm_spoils_no_line_and_lets_no_old_token_in(tmp_path: Path) -> None:
    weather = weather_a_watched_storm(
        tmp_path / "cluster", ROUNDS, (CALM, CALM, RESTLESS, SLOW, RUDE, VERY_SLOW)
    )
    assert weather.ledger.counts["conflated"], "no slow reader fell behind"

"""The storm of `test_replica_chaos`, for minutes."""

from pathlib import Path

import pytest
from tests.chaos import weather_a_storm

ROUNDS = 12


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_long_storm_spoils_no_answer_and_lets_no_old_token_in(tmp_path: Path) -> None:
    weather_a_storm(tmp_path / "cluster", ROUNDS)

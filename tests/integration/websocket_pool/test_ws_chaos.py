"""Two WebSocket replicas, Redis and terminals struck at random: no socket is told what is wrong."""

from pathlib import Path

from tests.watch_chaos import weather_a_watched_storm
from tests.watch_habits import CALM, RESTLESS, SLOW

from local_stack.embedded import RoleDsns


def test_a_storm_spoils_no_line_and_lets_no_old_token_in(
    postgres: RoleDsns, tmp_path: Path
) -> None:
    weather_a_watched_storm(tmp_path / "cluster", 1, (CALM, RESTLESS, SLOW), dsns=postgres)

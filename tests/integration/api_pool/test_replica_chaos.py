"""Two replicas and a Redis struck at random: no wrong answer, no call under an old token."""

from pathlib import Path

from tests.chaos import weather_a_storm

from local_stack.embedded import RoleDsns


def test_a_storm_spoils_no_answer_and_lets_no_old_token_in(
    postgres: RoleDsns, tmp_path: Path
) -> None:
    weather_a_storm(tmp_path / "cluster", rounds=1, dsns=postgres)

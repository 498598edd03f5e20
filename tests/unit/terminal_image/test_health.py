"""When a container of terminals is ill."""

from typing import Any

import pytest

from terminal.supervisor.health import _ill


@pytest.mark.parametrize(
    ("state", "answering", "in_login_until", "ill"),
    [
        ("running", True, None, None),
        ("running", False, None, "terminal 1 does not answer"),
        ("running", False, 1.0, None),
        ("draining", True, None, None),
        ("restarting", False, None, "terminal 1 is restarting"),
        # The first thing that the new one is asked may be a login.
        ("restarting", False, 1.0, None),
    ],
)
def test_a_login_whose_time_is_not_over_is_no_illness(
    *, state: str, answering: bool, in_login_until: float | None, ill: str | None
) -> None:
    terminal: dict[str, Any] = {
        "n": 1, "state": state, "answering": answering, "in_login_until": in_login_until,
    }  # fmt: skip
    assert _ill(terminal) == ill

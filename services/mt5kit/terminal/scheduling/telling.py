"""Events told so that a listener's fault stays its own."""

import structlog

from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import LoginRefused, Mt5SwarmError
from mt5kit.terminal.scheduling.parts import SchedulerEvents

log = structlog.get_logger(__name__)


class Telling:
    """A `SchedulerEvents` that never raises.

    Args:
        events: Who is told; what it raises is logged, and the turn goes on.
    """

    def __init__(self, events: SchedulerEvents) -> None:
        self._events = events

    def looked(self, account_id: str, token: int, snapshot: Snapshot) -> None:
        """See `SchedulerEvents.looked`."""
        try:
            self._events.looked(account_id, token, snapshot)
        except Exception:
            log.exception("look_not_told")

    def refused(self, account_id: str, error: LoginRefused) -> None:
        """See `SchedulerEvents.refused`."""
        try:
            self._events.refused(account_id, error)
        except Exception:
            log.exception("refusal_not_told")

    def changed(self, up: bool, why: Mt5SwarmError | None) -> None:
        """See `SchedulerEvents.changed`."""
        try:
            self._events.changed(up, why)
        except Exception:
            log.exception("change_not_told")

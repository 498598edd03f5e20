"""What happened to terminals, for the table that operators read."""

from collections.abc import Mapping
from typing import Literal

from mt5kit.service.background import Background
from mt5kit.state.postgres import WorkerStore

TerminalEvent = Literal["leased", "released", "up", "down"]


class TerminalJournal:
    """Appends to `terminal_events` behind everybody's back.

    While Postgres is away an event is lost but for its line in the log: the terminals' present
    state is on the board and in the metrics.

    Args:
        store: Where it is written.
        instance_id: This replica.
        background: Writes it.
    """

    def __init__(self, store: WorkerStore, instance_id: str, background: Background) -> None:
        self._store = store
        self._instance_id = instance_id
        self._background = background

    def note(
        self, terminal_id: str, event: TerminalEvent, detail: Mapping[str, object] | None = None
    ) -> None:
        """Append an event of this instant."""
        told = {"instance_id": self._instance_id, **(detail or {})}
        self._background.spawn(
            f"event-{terminal_id}", self._store.terminal_event(terminal_id, event, told)
        )

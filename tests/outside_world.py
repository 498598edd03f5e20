"""What a cluster did not make: simulated terminals, and the broker behind them."""

from functools import cached_property
from typing import Any

import httpx
from tests.cluster_plan import CONTROL_KEY, SERVER, ClusterAccount
from tests.waiting import PATIENCE_S

from local_stack.simulator import PlacedTerminal, Simulator
from mt5kit.state.keys import Role


class OutsideWorld:
    """The simulator, and what can be done to it.

    Args:
        simulator: Started.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.terminals = self._of_role("api")
        self.stream_terminals = self._of_role("stream")

    @cached_property
    def control(self) -> httpx.Client:
        """The simulator's control API."""
        return httpx.Client(
            base_url=self.simulator.ready().control_url,
            headers={"X-Supervisor-Key": CONTROL_KEY},
            timeout=PATIENCE_S,
        )

    def seen_by_broker(self, account: ClusterAccount) -> dict[str, Any]:
        """An account as its broker has it: `balance`, `positions`, `orders` and more."""
        answer = self.control.get(f"/accounts/{account.server}/{account.login}")
        return dict(answer.raise_for_status().json()["account"])

    def tickets(self, account: ClusterAccount) -> frozenset[int]:
        """The tickets of an account's positions, as its broker has them."""
        positions = self.seen_by_broker(account)["positions"]
        return frozenset(position["ticket"] for position in positions)

    def number_of(self, terminal_id: str) -> int:
        """What the simulator calls a terminal."""
        return [*self.terminals, *self.stream_terminals].index(terminal_id) + 1

    def fault(self, name: str, terminal_id: str | None = None, **parameters: object) -> list[int]:
        """Begin a fault at a terminal, or at the broker; the ids under which it can be mended."""
        where: dict[str, object] = {"server": SERVER}
        if terminal_id is not None:
            where = {"terminal": self.number_of(terminal_id)}
        answer = self.control.post("/faults", json={"name": name, **where, **parameters})
        return [fault["id"] for fault in answer.raise_for_status().json()["faults"]]

    def mend(self, fault_id: int) -> None:
        """End a fault; one that is over already is no error."""
        answer = self.control.delete(f"/faults/{fault_id}")
        if answer.status_code != httpx.codes.NOT_FOUND:
            answer.raise_for_status()

    def active_faults(self) -> list[dict[str, Any]]:
        """The faults that are on."""
        return list(self.control.get("/faults").raise_for_status().json()["active"])

    def restart_terminal(self, terminal_id: str) -> None:
        """Have the supervisor start a terminal again, a frozen one too."""
        number = self.number_of(terminal_id)
        self.control.post(f"/terminals/{number}/restart").raise_for_status()

    def terminal_state(self, terminal_id: str) -> dict[str, Any]:
        """What the supervisor says of a terminal."""
        states = self.control.get("/terminals").raise_for_status().json()["terminals"]
        return next(dict(one) for one in states if one["n"] == self.number_of(terminal_id))

    def _of_role(self, role: Role) -> dict[str, PlacedTerminal]:
        placed = self.simulator.terminals()
        return {one.terminal_id: one for one in placed if one.role == role}

"""The faults that are on: begun, counted, told again to whoever was restarted, ended."""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from terminal_sim.broker.messages import Done, Inject, Mend
from terminal_sim.faults.injection import Injection, brief
from terminal_sim.faults.kinds import (
    AccountSwitched,
    BrokerFault,
    Crash,
    Fault,
    Freeze,
    TerminalFault,
)
from terminal_sim.process.wire import Acted, Applied, Begin, Command, End, Ended, Message
from terminal_sim.scenario.model import Scenario
from terminal_sim.supervisor.broker_link import BrokerDown, BrokerLink, BrokerRefused
from terminal_sim.supervisor.fault_entry import Entry
from terminal_sim.supervisor.fleet import Fleet
from terminal_sim.supervisor.members import TerminalMember

_LOG = logging.getLogger("terminal_sim.supervisor")
# A frozen terminal ends its faults when it wakes.
_MENDED_S = 3.0
# So many of the largest wait in the pipe of a terminal that is started, for its first client.
_MOST_AT_ONE = 64


Ask = Callable[[Callable[[int, str | None], Inject], type[Done]], Awaitable[Done]]


class NoSuchTarget(LookupError):
    """There is no such terminal or broker here; the message is one line for a person."""


class TooManyFaults(Exception):
    """So many are on there that no other can begin; the message is one line for a person."""


class StillHeld(Exception):
    """A frozen terminal cannot be told to go on; the message is for a person."""

    def __init__(self, entry: Entry) -> None:
        where = f"Terminal {entry.terminal} is held for {entry.held_s:.1f} s more"
        way_out = f"`terminal-sim restart {entry.terminal}` ends it at once"
        super().__init__(f"{where}, and then no more by fault {entry.id}; {way_out}.")


class FaultBook:
    """All faults of a supervisor.

    Args:
        fleet: Whom they are for.
        scenario: Knows passwords that somebody at a terminal's window would have typed.

    Attributes:
        planned: The faults the scenario plans.
    """

    def __init__(self, fleet: Fleet, scenario: Scenario | None) -> None:
        self._fleet = fleet
        self._scenario = scenario
        self.planned = scenario.faults if scenario else ()
        self._ids = itertools.count(1)
        self._entries: dict[int, Entry] = {}
        self._ending: dict[int, Entry] = {}
        # The loop keeps no strong references to its tasks.
        self._tasks: set[asyncio.Task[None]] = set()
        for number, terminal in fleet.terminals.items():
            self._watch_terminal(number, terminal)
        for server, link in fleet.links.items():
            self._watch_broker(server, link)

    def active(self) -> list[Entry]:
        """Return the faults that are on, oldest first."""
        for entry in [each for each in self._entries.values() if each.over]:
            self._forget(entry)
        return list(self._entries.values())

    def inject(self, injection: Injection) -> list[Entry]:
        """Begin a fault wherever it is wanted; return one entry for each terminal or broker.

        Raises:
            NoSuchTarget: There is none.
            TooManyFaults: One of them has its fill.
            BlockingIOError: A terminal has not read its commands for a long time.
        """
        targets = self.targets(injection)
        self._check_room(targets)
        fault = self._completed(injection.fault)
        entries = [Entry(next(self._ids), fault, **target) for target in targets]
        for entry in entries:
            self._entries[entry.id] = entry
            try:
                self._begin(entry)
            except Exception:
                del self._entries[entry.id]
                raise
            if entry.ends is not None:
                wait_s = max(entry.ends - time.monotonic(), 0.0)
                asyncio.get_running_loop().call_later(wait_s, self._expire, entry)
            _LOG.info("fault %d begins: %s", entry.id, entry)
        return entries

    async def mend(self, fault_id: int) -> bool:
        """End a fault; return whether it was on.

        Comes back when the terminal or broker has ended it, or could have and did not.

        Raises:
            StillHeld: It is a freeze that is yet to let the terminal go; there is no other.
        """
        entry = self._entries.get(fault_id)
        if entry is None or entry.over:
            return False
        if entry.held_s:
            # Over as soon as it lets go; whoever is started in its place is not held again.
            entry.ends = time.monotonic()
            if entry.id not in self._ending:
                self._end(entry)
            raise StillHeld(entry)
        self._forget(entry)
        self._end(entry)
        with suppress(TimeoutError):
            await asyncio.wait_for(entry.ended.wait(), _MENDED_S)
        return True

    async def mend_all(self) -> int:
        """End all faults; return how many were on.

        Raises:
            StillHeld: One of them is a freeze that is yet to let its terminal go; the others have
                ended.
        """
        mending = (self.mend(entry.id) for entry in self.active())
        outcomes = await asyncio.gather(*mending, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes.count(True)

    def targets(self, injection: Injection) -> list[dict[str, Any]]:
        """Return where a fault is wanted, as the fields of its entries.

        Raises:
            NoSuchTarget: There is no such terminal or broker here.
        """
        if isinstance(injection.fault, TerminalFault):
            return _chosen("terminal", injection.terminal, self._fleet.terminals)
        elsewhere = self._fleet.elsewhere.get(injection.server or "")
        if elsewhere:
            where = "{}:{}".format(*elsewhere)
            raise NoSuchTarget(f"The broker of {injection.server} is run elsewhere, at {where}.")
        return _chosen("server", injection.server, self._fleet.brokers)

    def _check_room(self, targets: Iterable[dict[str, Any]]) -> None:
        there = Counter((each.terminal, each.server) for each in self.active())
        for target in targets:
            if there[target.get("terminal"), target.get("server")] >= _MOST_AT_ONE:
                (where,) = target.values()
                at = f"terminal {where}" if "terminal" in target else f"the broker of {where}"
                raise TooManyFaults(f"{_MOST_AT_ONE} faults are on at {at}: end some of them.")

    def _completed(self, fault: Fault) -> Fault:
        """Add the password that the scenario knows."""
        if not isinstance(fault, AccountSwitched) or fault.password is not None:
            return fault
        scenario = self._scenario
        if scenario is None:
            return fault
        server = fault.server or self._fleet.servers[0]
        account = scenario.account(fault.login, server)
        return msgspec.structs.replace(fault, password=account.password) if account else fault

    def _watch_terminal(self, number: int, terminal: TerminalMember) -> None:
        terminal.on_start = lambda: self._first_commands(number)
        terminal.on_message = self._hear
        terminal.on_listening = lambda: self._crash_again(number)

    def _watch_broker(self, server: str, link: BrokerLink) -> None:
        link.on_spent = lambda fault_id: self._count(fault_id, 1)
        link.on_connected = lambda: self._tell_again(server, link)

    def _first_commands(self, number: int) -> list[Command]:
        # With the process before have ended the faults that it was still to end.
        for entry in [each for each in self._ending.values() if each.terminal == number]:
            self._hear(Ended(entry.id))
        for entry in self._entries.values():
            if entry.terminal == number:
                entry.held_until = 0.0
        mine = (each for each in self.active() if each.terminal == number)
        return [Begin(each.id, each.rest()) for each in mine if not isinstance(each.fault, Crash)]

    def _crash_again(self, number: int) -> None:
        for entry in self.active():
            if entry.terminal == number and isinstance(entry.fault, Crash):
                self._begin(entry)
                return

    async def _tell_again(self, server: str, link: BrokerLink) -> None:
        for entry in self.active():
            if entry.server == server:
                await self._tell_broker(entry, link.ask_at_once)

    def _begin(self, entry: Entry) -> None:
        if entry.server is not None:
            self._spawn(self._tell_broker(entry, self._fleet.links[entry.server].ask))
            return
        terminal = self._fleet.terminals[entry.terminal or 0]
        if isinstance(entry.fault, Crash):
            entry.applied.set()
            if terminal.kill():
                self._count(entry.id, 1)
        else:
            terminal.tell(Begin(entry.id, entry.rest()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_broker(self, entry: Entry, ask: Ask) -> None:
        fault: BrokerFault = entry.rest()
        try:
            await ask(lambda number, key: Inject(number, entry.id, fault, key), Done)
        except BrokerDown as down:
            # It is told when it can be reached again.
            _LOG.warning("fault %d: the broker of %s %s", entry.id, entry.server, down)
        except BrokerRefused as refused:
            self._hear(Applied(entry.id, f"{refused.reason}: {refused}"))
        except Exception as problem:  # noqa: BLE001 - the other faults are still to be told
            _LOG.exception("fault %d: the broker of %s was not told", entry.id, entry.server)
            self._hear(Applied(entry.id, f"{type(problem).__name__}: {problem}"))
        else:
            self._hear(Applied(entry.id))

    def _expire(self, entry: Entry) -> None:
        if self._entries.get(entry.id) is not entry:
            return
        if entry.held_s:
            asyncio.get_running_loop().call_later(entry.held_s, self._expire, entry)
        else:
            self._forget(entry)
            self._end(entry)

    def _end(self, entry: Entry) -> None:
        if entry.server is not None:
            self._spawn(self._mend_broker(entry))
        elif isinstance(entry.fault, Crash) or not self._told_to_end(entry):
            entry.ended.set()

    def _told_to_end(self, entry: Entry) -> bool:
        told = self._fleet.terminals[entry.terminal or 0].tell(End(entry.id))
        if told:
            self._ending[entry.id] = entry
        return told

    async def _mend_broker(self, entry: Entry) -> None:
        link = self._fleet.links[entry.server or ""]
        try:
            await link.ask(lambda number, key: Mend(number, entry.id, key), Done)
        except (BrokerDown, BrokerRefused) as error:
            # A broker that was restarted knows nothing of the fault.
            _LOG.warning(
                "fault %d: not ended at the broker of %s: %s", entry.id, entry.server, error
            )
        entry.ended.set()

    def _hear(self, message: Message) -> None:
        if isinstance(message, Acted):
            self._count(message.fault_id, message.count)
        elif isinstance(message, Ended):
            entry = self._ending.pop(message.fault_id or 0, None)
            if entry:
                entry.ended.set()
        elif isinstance(message, Applied):
            entry = self._entries.get(message.fault_id)
            if entry is None:
                return
            entry.error = message.error
            entry.applied.set()
            if message.error:
                self._forget(entry)

    def _count(self, fault_id: int, count: int) -> None:
        entry = self._entries.get(fault_id)
        if entry is None:
            return
        entry.acted += count
        if isinstance(entry.fault, Freeze):
            entry.held_until = time.monotonic() + entry.fault.hold_s
            asyncio.get_running_loop().call_later(entry.fault.hold_s, self._let_go, entry)
        if entry.over:
            # Whoever waits for it to begin has missed nothing.
            entry.applied.set()
            self._forget(entry)

    def _let_go(self, entry: Entry) -> None:
        if entry.over:
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        if self._entries.pop(entry.id, None):
            _LOG.info("fault %d ends; it acted %d times", entry.id, entry.acted)


def _chosen(name: str, wanted: object, there: Iterable[Any]) -> list[dict[str, Any]]:
    known = list(there)
    if wanted is None and known:
        return [{name: each} for each in known]
    if wanted in known:
        return [{name: wanted}]
    if wanted is None:
        raise NoSuchTarget(f"No {'terminal' if name == 'terminal' else 'broker'} is run here.")
    kind = "terminal" if name == "terminal" else "broker of"
    raise NoSuchTarget(f"There is no {kind} {brief(str(wanted))} here.")

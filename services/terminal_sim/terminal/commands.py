"""What the supervisor tells a terminal to do, in a thread of the terminal."""

import logging
import threading
from functools import partial
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Protocol

import msgspec

from terminal_sim.faults.kinds import (
    AccountSwitched,
    Freeze,
    MemoryGrowth,
    TerminalFault,
    UnstableLink,
)
from terminal_sim.process.wire import (
    Applied,
    Begin,
    Command,
    Ended,
    Message,
    decode_command,
    encode,
)
from terminal_sim.terminal.mischief import Episode, Freezing, Growing, Switching
from terminal_sim.terminal.streams import Weather
from terminal_sim.terminal.tally import Tally

_LOG = logging.getLogger("terminal_sim")
# Acts that are not told at once are told so often.
_TELL_S = 0.2


class NotSwitched(Exception):
    """The account could not be switched; the message is one line for a person."""


class Breakable(Protocol):
    """The terminal, as far as commands go."""

    def inject(self, fault_id: int, fault: TerminalFault) -> None:
        """Begin a fault that calls feel."""
        ...

    def mend(self, fault_id: int | None) -> None:
        """End one, or all."""
        ...

    def switch_account(self, fault: AccountSwitched) -> None:
        """Log another account in behind the clients' backs.

        Raises:
            NotSwitched: It could not be logged in.
        """
        ...


class Upstream:
    """The pipe to the supervisor, for whichever thread has something to tell.

    Args:
        pipe: Its end must be non-blocking.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message, whole or not at all.

        Raises:
            OSError: The pipe is full or closed.
        """
        with self._lock:
            self._pipe.send_bytes(encode(message))


class Commands:
    """Carries out commands until the supervisor has gone.

    Args:
        pipe: Where they come from.
        upstream: Where answers go.
        terminal: What they are about.
        weather: Of the terminal's connections.
        tally: Counts how often faults act.

    Attributes:
        serving: To be set when the terminal listens: what freezes a terminal before that keeps
            its supervisor waiting.
    """

    def __init__(
        self,
        pipe: Connection,
        upstream: Upstream,
        terminal: Breakable,
        weather: Weather,
        tally: Tally,
    ) -> None:
        self._pipe = pipe
        self._upstream = upstream
        self._terminal = terminal
        self._weather = weather
        self._tally = tally
        self.serving = threading.Event()
        self._begun: set[int] = set()
        self._episodes: dict[int, Episode] = {}

    def start(self) -> None:
        """Carry out what is already there, so that the first client meets it; then go on."""
        while self._pipe.poll():
            if not self._next():
                return
        threading.Thread(target=self._run, name="commands", daemon=True).start()

    def _run(self) -> None:
        while True:
            waiting = connection.wait([self._pipe], _TELL_S if self._begun else None)
            self._tally.flush()
            if waiting and not self._next():
                return

    def _next(self) -> bool:
        """Carry one command out; return whether there can be more."""
        try:
            command = decode_command(self._pipe.recv_bytes())
        except (EOFError, ConnectionResetError):
            return False
        except OSError:  # half a command: nobody knows where the next one begins
            _LOG.exception("commands can be read no more; the terminal has to be restarted")
            return False
        except msgspec.DecodeError:
            _LOG.exception("a command was not understood")
            return True
        self._carry_out(command)
        return True

    def _carry_out(self, command: Command) -> None:
        if not isinstance(command, Begin):
            self._end(command.fault_id)
            self._tell(Ended(command.fault_id))
            return
        try:
            episode = self._begin(command.fault_id, command.fault)
        except Exception as problem:  # noqa: BLE001 - the supervisor is told, the thread goes on
            _LOG.exception("fault %d could not begin", command.fault_id)
            reason = f"{type(problem).__name__}: {problem}"
            self._tell(Applied(command.fault_id, reason))
            return
        if not isinstance(episode, Switching):
            self._tell(Applied(command.fault_id))
        if episode:
            # Not before: a frozen terminal has no answer.
            self._episodes[command.fault_id] = episode
            episode.start(f"fault-{command.fault_id}", self.serving)

    def _begin(self, fault_id: int, fault: TerminalFault) -> Episode | None:
        acted = partial(self._tally, fault_id)
        self._begun.add(fault_id)
        self._tally.begin(fault_id, fault)
        if isinstance(fault, Freeze):
            return Freezing(fault, partial(self._frozen, fault_id))
        if isinstance(fault, MemoryGrowth):
            return Growing(fault, acted)
        if isinstance(fault, AccountSwitched):
            return Switching(fault, acted, partial(self._switch, fault_id))
        if isinstance(fault, UnstableLink):
            self._weather.begin(fault_id, fault)
        else:
            self._terminal.inject(fault_id, fault)
        return None

    def _frozen(self, fault_id: int) -> None:
        """Count a freeze and tell it now: while it lasts, nothing can be told."""
        self._tally(fault_id)
        self._tally.flush()

    def _switch(self, fault_id: int, fault: AccountSwitched) -> None:
        """Switch the account, then say so: what logs in after that stays logged in."""
        reason = None
        try:
            self._terminal.switch_account(fault)
        except NotSwitched as known:
            reason = str(known)
            _LOG.warning("fault %d: %s", fault_id, reason)
        except Exception as problem:  # noqa: BLE001 - the supervisor is told
            _LOG.exception("fault %d: the account could not be switched", fault_id)
            reason = f"{type(problem).__name__}: {problem}"
        self._tell(Applied(fault_id, reason))

    def _tell(self, message: Message) -> None:
        try:
            self._upstream.send(message)
        except OSError as error:  # the supervisor has gone, or does not read: it knows less then
            _LOG.warning("the supervisor was not told %s: %s", type(message).__name__, error)

    def _end(self, fault_id: int | None) -> None:
        self._weather.end(fault_id)
        self._terminal.mend(fault_id)
        ended = set(self._begun) if fault_id is None else {fault_id}
        self._begun -= ended
        for each in ended:
            if episode := self._episodes.pop(each, None):
                episode.mend()

"""The two kinds of processes a supervisor keeps."""

import os
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import TYPE_CHECKING

from terminal_sim.broker.process import BrokerSettings
from terminal_sim.broker.process import run as run_broker
from terminal_sim.process.wire import Command, Message
from terminal_sim.supervisor.member import Member, Starting
from terminal_sim.supervisor.outbox import Outbox
from terminal_sim.terminal.board import SharedBoard
from terminal_sim.terminal.process import Settings
from terminal_sim.terminal.process import run as run_terminal

if TYPE_CHECKING:
    from collections.abc import Callable

# A broker may have a journal to close.
_BROKER_GRACE_S = 5.0


class TerminalMember(Member):
    """A terminal.

    Args:
        settings: How to run it.
        starting: How processes are started.

    Attributes:
        board: Where it posts its logins.
        on_start: Asked what to tell it before its first client.
        on_message: Called with what it tells besides its log.
    """

    def __init__(self, settings: Settings, starting: Starting) -> None:
        name = f"mt5-terminal-{settings.number}"
        super().__init__(name, settings.host, settings.port, starting)
        self.settings = settings
        self.board = SharedBoard(starting.context)
        self.on_start: Callable[[], list[Command]] = list
        self.on_message: Callable[[Message], None] = _ignore
        self._outbox: Outbox | None = None

    def tell(self, command: Command) -> bool:
        """Send a command, unless there is no process; return whether it is on its way.

        Raises:
            BlockingIOError: The terminal has not read its commands for a long time.
        """
        if self._outbox is None:
            return False
        self._outbox.put(command)
        return True

    def _pipes(self) -> tuple[Connection, Connection]:
        self.board.clear()
        ours, theirs = self._starting.context.Pipe()
        os.set_blocking(ours.fileno(), False)
        self._outbox = Outbox(ours)
        try:
            for command in self.on_start():
                self._outbox.put(command)
        except BaseException:
            self._unplug()
            ours.close()
            theirs.close()
            raise
        return ours, theirs

    def _unplug(self) -> None:
        if self._outbox:
            self._outbox.close()
        self._outbox = None

    def _launch(self, pipe: Connection) -> ForkServerProcess:
        process = self._starting.context.Process(
            target=run_terminal, args=(self.settings, self.board, pipe), name=self.name
        )
        process.start()
        return process

    def _hear(self, message: Message) -> None:
        self.on_message(message)


class BrokerMember(Member):
    """The broker of one server.

    Args:
        settings: How to run it.
        starting: How processes are started.
    """

    def __init__(self, settings: BrokerSettings, starting: Starting) -> None:
        name = f"mt5-broker {settings.server}"
        where = settings.host, settings.port
        super().__init__(name, *where, starting, grace_s=_BROKER_GRACE_S)
        self.settings = settings

    def _pipes(self) -> tuple[Connection, Connection]:
        return self._starting.context.Pipe(duplex=False)

    def _launch(self, pipe: Connection) -> ForkServerProcess:
        process = self._starting.context.Process(
            target=run_broker, args=(self.settings, pipe), name=self.name
        )
        process.start()
        return process


def _ignore(_message: Message) -> None:
    """Nobody wants to know."""

"""One terminal: MetaTrader, the RPyC server beside it, and what is known of both."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from terminal.supervisor.board import Said, read_board
from terminal.supervisor.config_dir import TerminalDirectory
from terminal.supervisor.events import iso, tell
from terminal.supervisor.journal import Journal
from terminal.supervisor.layout import EXECUTABLE, PYTHON_IN_WINE, Layout, windows
from terminal.supervisor.logs import BoundedLog
from terminal.supervisor.part import Part
from terminal.supervisor.probe import Prober
from terminal.supervisor.processes import memory_bytes

if TYPE_CHECKING:
    from terminal.supervisor.clients import Clients
    from terminal.supervisor.settings import Settings

# Between two looks at who is connected, and at the journal.
_LOOK_S = 0.5


class Member:
    """A terminal of the container.

    Only the supervisor's loop acts on it; other threads read, and ask for a restart.

    Args:
        number: From 1.
        settings: Where it listens, and how long things may take.
        environment: Of its processes.
        clients: Who is connected.

    Attributes:
        number: From 1.
        port: Of its RPyC server.
        log: What its parts print.
        draining: Whether the container is to end.
        resets: How often both parts were ended and begun anew at once.
        connected: How many clients there are.
    """

    def __init__(
        self, number: int, settings: Settings, environment: dict[str, str], clients: Clients
    ) -> None:
        layout = Layout.of(settings)
        self.number = number
        self.port = settings.port_base + number - 1
        self.log = BoundedLog(layout.logs / f"terminal-{number}.jsonl")
        self.draining = False
        self.resets = 0
        self.connected = 0
        self._timing = settings.timing
        self._clients = clients
        self._directory = TerminalDirectory(layout, number)
        self._board = layout.board(number)
        self._journal = Journal(layout.terminal(number) / "logs", self.log)
        self._stopped = self._clearing = self._asked = self._served = self._used = False
        self._last_client = self._looked = self._excused = float("-inf")
        executable = f"{layout.windows_terminal(number)}\\{EXECUTABLE}"
        self._terminal = Part(
            f"terminal-{number}",
            ["wine", executable, "/portable"],
            environment,
            self.log,
            words=(executable.partition(":")[2],),
            prepare=self._directory.secure,
        )
        script = windows(layout.image_dir / "terminal" / "wine" / "serve.py")
        port = str(self.port)
        self._server = Part(
            f"rpyc-{number}",
            ["wine", PYTHON_IN_WINE, "-u", "-B", script, "--host", settings.host, "--port", port,
             "--directory", layout.windows_terminal(number), "--board", windows(self._board)],
            environment,
            self.log,
            words=("serve.py", layout.windows_terminal(number), windows(self._board)),
            prepare=self._forget,
        )  # fmt: skip
        timing = settings.timing
        self._prober = Prober(clients, self.port, timing.probe_s, timing.answer_s)

    # -- read by any thread -----------------------------------------------------------------------

    @property
    def serving(self) -> bool:
        """Whether both parts run and the server has answered since it was started."""
        whole = self._terminal.running and self._server.running and not self._clearing
        return whole and self._prober.last_answer >= self._server.started_at

    @property
    def state(self) -> str:
        """Starting, running, restarting, draining or stopped."""
        if self._stopped:
            return "stopped"
        if self.serving:
            return "draining" if self.draining else "running"
        return "restarting" if self._served else "starting"

    def said(self) -> Said:
        """What the server says of itself."""
        return read_board(self._board) if self._server.running else Said()

    def row(self) -> dict[str, object]:
        """Everything about it, for the control API."""
        said = self.said()
        in_login = said.login_until_ms > time.time() * 1000
        pids = [pid for pid in (self._terminal.pid, self._server.pid) if pid]
        started_s = max(self._terminal.started_s, self._server.started_s)
        return {
            "n": self.number,
            "port": self.port,
            "pid": self._terminal.pid,
            "state": self.state,
            "in_login_until": iso(said.login_until_ms / 1000) if in_login else None,
            "memory_bytes": memory_bytes(pids),
            "version": said.version,
            "restarts": self._terminal.restarts + self._server.restarts,
            "started_at": iso(started_s) if started_s else None,
            "logged_in": said.logged_in or None,
            "answering": self._prober.answering,
            "clients": self.connected,
        }

    def ask_restart(self) -> int:
        """Have both parts begun anew; return what `resets` will be by then."""
        self._asked = True
        return self.resets + 1

    # -- called by the supervisor's loop ----------------------------------------------------------

    def make(self) -> None:
        """Make its directory, which takes a while; called once, before `begin`, by any thread."""
        self._directory.make()
        self._directory.forget()
        self._journal.skip()

    def begin(self) -> None:
        """Start both parts."""
        self._terminal.wanted = self._server.wanted = True

    def tick(self) -> None:
        """Look at everything once, and do what follows."""
        if self._asked:
            self._asked = False
            self._reset("asked")
        self._clear_when_ended()
        self._terminal.tick()
        self._server.tick()
        self._served = self._served or self.serving
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self._look(now)

    def cut(self) -> None:
        """End both parts, to be started again with what is kept: they have lost what they need."""
        self._terminal.kill()
        self._server.kill()

    def end_server(self) -> None:
        """Ask the server to end, so that nobody comes any more."""
        self._server.wanted = self._terminal.wanted = False
        self._server.terminate()

    def end(self) -> None:
        """End both parts, MetaTrader first politely, and forget what was kept of accounts."""
        self._stopped = True
        self._prober.stop()
        self._terminal.terminate()
        deadline = time.monotonic() + self._timing.stop_s
        while not (self._terminal.gone() and self._server.gone()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()
        self._directory.forget()

    def kill(self) -> None:
        """End both parts at once."""
        self._stopped = True
        for part in (self._server, self._terminal):
            part.wanted = False
            part.kill()

    # -- within -----------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        self._journal.follow()
        self.connected = self._clients.count(self.port)
        said = self.said()
        if self.connected or said.logged_in:
            self._last_client = now if self.connected or not self._used else self._last_client
            self._used = True
        self._end_if_frozen(now, said)
        release_s = self._timing.release_s
        quiet = self._used and not self.connected and now - self._last_client > release_s
        if quiet and release_s and not self.draining:
            self._reset("released")

    def _end_if_frozen(self, now: float, said: Said) -> None:
        if said.login_until_ms > time.time() * 1000:
            # What comes after a login has its own time: the interpreter was silent all through it.
            self._excused = now
        answered = self._prober.last_answer >= self._server.started_at
        limit_s = self._timing.frozen_s if answered else self._timing.start_s
        heard = max(self._prober.last_answer, self._server.started_at, self._excused)
        if self._server.running and now - heard > limit_s:
            # What holds an interpreter is a call to MetaTrader that does not come back: which of
            # the two hangs, nobody can tell.
            tell("terminal_frozen", "error", terminal=self.number, silent_s=round(now - heard, 1))
            self.cut()

    def _reset(self, why: str) -> None:
        """Begin both parts anew, with nothing kept of accounts."""
        tell("terminal_reset", terminal=self.number, why=why)
        self._used = False
        self._clearing = True
        self._served = True
        for part in (self._server, self._terminal):
            part.wanted = False
            part.kill()
        self.resets += 1

    def _clear_when_ended(self) -> None:
        if not self._clearing:
            return
        if not (self._terminal.gone() and self._server.gone()):
            self.cut()
            return
        try:
            self._directory.forget()
        except OSError as error:
            # Not before it is empty does anything run there again.
            tell("config_not_cleared", "error", terminal=self.number, error=str(error))
            return
        tell("config_cleared", terminal=self.number)
        for part in (self._server, self._terminal):
            part.tick()
            part.hurry()
            part.wanted = not self._stopped
        self._clearing = False

    def _forget(self) -> None:
        """What the last server said is not what the next one does."""
        self._board.unlink(missing_ok=True)

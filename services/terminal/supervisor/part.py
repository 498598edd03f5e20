"""One process that is to run always: started, watched, started again."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING, Callable

from terminal.supervisor.events import tell
from terminal.supervisor.processes import Adopted, running, send
from terminal.supervisor.settings import Refused

if TYPE_CHECKING:
    from terminal.supervisor.logs import BoundedLog

# The first restart comes at once; then each waits twice as long as the one before.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
# After so long a run the trouble counts as over.
STEADY_S = 30.0


class Part:
    """A process of a terminal, or the display.

    Not for several threads: whoever calls `tick` calls everything but what only reads.

    Args:
        name: In events and logs.
        command: What to run.
        environment: All variables it gets.
        log: Takes its output, line by line.
        words: Among the arguments of every process that is this part, however it was started; see
            `processes.running`. Without any, only the process that was started is.
        prepare: Called before each start; what it raises counts as an end of the process.
        pass_fds: Open files that it inherits.

    Attributes:
        wanted: Whether it is to run.
        restarts: How often it was started again.
        started_at: When it was started last, by `time.monotonic()`.
        started_s: The same in epoch seconds; 0: not yet.
        ends: How often it has ended.
    """

    def __init__(  # noqa: PLR0913 - one process is described by so much
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        log: BoundedLog,
        *,
        words: tuple[str, ...] = (),
        prepare: Callable[[], object] = tuple,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.wanted = False
        self.restarts = 0
        self.started_at = float("-inf")
        self.started_s = 0.0
        self.ends = 0
        self._command = command
        self._environment = environment
        self._log = log
        self._words = words
        self._prepare = prepare
        self._pass_fds = pass_fds
        self._process: subprocess.Popen[bytes] | Adopted | None = None
        self._wait_s = 0.0
        self._start_at = float("-inf")

    @property
    def pid(self) -> int | None:
        """Id of the process, while there is one."""
        process = self._process
        return process.pid if process else None

    @property
    def running(self) -> bool:
        """Whether there is a process, as of the last tick."""
        return self._process is not None

    def tick(self) -> None:
        """Notice an end, and start what is to run and does not."""
        if self._process is not None and self._process.poll() is not None:
            self._ended(f"ended with {self._process.poll()}")
        if self._process is None and self.wanted and time.monotonic() >= self._start_at:
            self._start()

    def hurry(self) -> None:
        """Start again at once, whatever the trouble was."""
        self._wait_s = 0.0
        self._start_at = float("-inf")

    def terminate(self) -> None:
        """Ask it to end, and whatever else is this part."""
        if self._process is not None:
            self._process.terminate()
        for pid in self._others():
            send(pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and whatever else is this part."""
        if self._process is not None:
            self._process.kill()
        for pid in self._others():
            send(pid, signal.SIGKILL)

    def gone(self) -> bool:
        """Whether nothing runs any more that is this part."""
        if self._process is not None and self._process.poll() is None:
            return False
        return not self._others()

    def _start(self) -> None:
        again = self.started_s > 0
        self.started_at, self.started_s = time.monotonic(), time.time()
        try:
            self._prepare()
            self._process = self._adopt() or self._launch()
        except (OSError, Refused) as error:
            self._ended(f"could not be started: {error}")
            return
        self.restarts += again
        tell("part_started", part=self.name, pid=self._process.pid, restarts=self.restarts)

    def _adopt(self) -> Adopted | None:
        """A process that somebody else has started; of one directory MetaTrader runs but once."""
        found = self._others()
        return Adopted(found[0]) if found else None

    def _others(self) -> list[int]:
        """Ids of the processes of this prefix that are this part, whoever started them."""
        variable = f"WINEPREFIX={self._environment.get('WINEPREFIX')}"
        return running(self._words, variable) if self._words else []

    def _launch(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - a command of ours
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self._pass_fds,
        )
        name = f"log-{self.name}"
        threading.Thread(
            target=keep_lines, args=(process.stdout, self._log), name=name, daemon=True
        ).start()
        return process

    def _ended(self, how: str) -> None:
        self._process = None
        self.ends += 1
        now = time.monotonic()
        if now - self.started_at > STEADY_S:
            self._wait_s = 0.0
        self._start_at = now + self._wait_s
        level = "warning" if self.wanted else "info"
        self._log.append(f"{self.name} {how}", level.upper())
        again = {"again_in_s": self._wait_s} if self.wanted else {}
        tell("part_ended", level, part=self.name, how=how, **again)
        self._wait_s = min(max(2 * self._wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)


def keep_lines(output: IO[bytes] | None, log: BoundedLog) -> None:
    """Write what a process prints into a log, until it and its children have closed the pipe."""
    if output is None:
        return
    with output:
        # Bounded: a program that never ends a line must not fill the memory.
        for raw in iter(lambda: output.readline(4096), b""):
            text = raw.decode("utf-8", "replace").rstrip()
            if text:
                log.append(text)

"""The loop that keeps everything running, and ends it in good order."""

from __future__ import annotations

import resource
import signal
import threading
import time
from typing import TYPE_CHECKING

from terminal.supervisor.api import serve_api
from terminal.supervisor.clients import Clients
from terminal.supervisor.config_dir import check_in_memory
from terminal.supervisor.display import Display
from terminal.supervisor.events import tell
from terminal.supervisor.first_boot import FirstBoot, Stopped
from terminal.supervisor.layout import Layout
from terminal.supervisor.logs import BoundedLog
from terminal.supervisor.member import Member
from terminal.supervisor.part import Part
from terminal.supervisor.settings import Refused
from terminal.supervisor.wine import end_wine, environment

if TYPE_CHECKING:
    from terminal.supervisor.settings import Settings

_TICK_S = 0.1
_KILLED = 128 + signal.SIGTERM


class Supervisor:
    """All that runs in one container.

    Args:
        settings: What it is told.

    Raises:
        Refused: The volume or the tmpfs cannot be used.

    Attributes:
        members: The terminals by their numbers.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._layout = Layout.of(settings)
        self._prepare_places()
        self._environment = environment(settings)
        self._clients = Clients()
        self._display = Display(
            settings, self._environment, BoundedLog(self._layout.logs / "display.jsonl")
        )
        self.members = {
            number: Member(number, settings, self._environment, self._clients)
            for number in settings.numbers
        }
        # It outlives the programs it serves, and without it they hang for ever.
        self._wine = Part(
            "wineserver",
            ["wineserver", "-f", "-p"],
            self._environment,
            BoundedLog(self._layout.logs / "wineserver.jsonl"),
        )
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._made = threading.Event()
        self._failure: BaseException | None = None
        self._signals = 0
        self._busy_at = float("-inf")

    def drain(self) -> None:
        """Show running terminals as draining from now on."""
        for member in self.members.values():
            member.draining = True

    def run(self) -> int:
        """Run until SIGTERM or SIGINT and what follows from it; return the exit code.

        Raises:
            Refused: The port of the control API is in use.
        """
        # What a process leaves behind that crashed holds the passwords of its logins.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        served = serve_api(self, self._settings)
        boot = threading.Thread(target=self._boot, name="first-boot", daemon=True)
        boot.start()
        try:
            return self._loop()
        finally:
            # Whatever has happened, nothing is left behind.
            self._stop.set()
            for member in self.members.values():
                member.kill()
            self._wine.kill()
            self._display.stop()
            served.shutdown()

    def _loop(self) -> int:
        begun = False
        drain_from: float | None = None
        while True:
            self._display.tick()
            if self._failure is not None:
                raise self._failure
            if self._made.is_set() and self._display.ready:
                begun = begun or self._begin()
            if begun:
                self._tick()
            if self._signals > 1:
                tell("killed", "warning")
                return _KILLED
            if self._signals:
                if drain_from is None:
                    drain_from = time.monotonic()
                    self.drain()
                    tell("draining", limit_s=self._settings.timing.drain_s)
                if not begun or self._drained(drain_from):
                    return self._end()
            self._wake.wait(_TICK_S)

    def _tick(self) -> None:
        ends = self._wine.ends
        self._wine.tick()
        for member in self.members.values():
            if self._wine.ends > ends:
                member.cut()
            member.tick()

    def _begin(self) -> bool:
        self._wine.wanted = True
        for member in self.members.values():
            member.begin()
        tell("terminals_begun", terminals=len(self.members))
        return True

    def _drained(self, drain_from: float) -> bool:
        """Whether everybody has left, or has had the time to."""
        now = time.monotonic()
        left = sum(self._clients.count(member.port) for member in self.members.values())
        if left:
            self._busy_at = now
        if now - max(self._busy_at, drain_from) >= self._settings.timing.quiet_s:
            tell("drained", seconds=round(now - drain_from, 1))
            return True
        if now - drain_from >= self._settings.timing.drain_s:
            tell("drain_over", "warning", clients=left)
            return True
        return False

    def _end(self) -> int:
        self._stop.set()
        for member in self.members.values():
            member.end_server()
        for member in self.members.values():
            member.end()
            tell("terminal_stopped", terminal=member.number)
            if self._signals > 1:
                tell("killed", "warning")
                return _KILLED
        self._wine.wanted = False
        end_wine(self._environment)
        tell("stopped")
        return 0

    def _boot(self) -> None:
        """Make the prefix when there is none; in a thread, because it takes minutes."""
        log = BoundedLog(self._layout.logs / "first-boot.jsonl")
        boot = FirstBoot(self._layout, self._settings, self._environment, log, self._stop)
        try:
            while not self._display.ready:
                if self._stop.wait(_TICK_S):
                    return
            boot.run()
            for member in self.members.values():
                member.make()
        except Stopped:
            return
        except BaseException as failure:  # noqa: BLE001 - raised again by the loop
            self._failure = failure
        else:
            self._made.set()
        self._wake.set()

    def _prepare_places(self) -> None:
        try:
            self._settings.run_dir.mkdir(parents=True, exist_ok=True)
            check_in_memory(self._settings.run_dir)
            for number in self._settings.numbers:
                self._layout.run(number).mkdir(mode=0o700, exist_ok=True)
            self._layout.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"{error.filename} cannot be used: {error.strerror}") from error

    def _signalled(self, _number: int, _frame: object) -> None:
        self._signals += 1
        self._wake.set()

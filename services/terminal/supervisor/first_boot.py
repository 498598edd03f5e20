"""Making Wine's prefix on an empty volume: all of it, or none.

A marker is written last. A prefix without one, or made from other parts than this image brings,
is thrown away and made anew: Wine writes its registry late, so what a kill has left half-made
cannot be trusted, and there is nothing in it that is not made again in minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Callable

from terminal.supervisor.download import DownloadFailed, download
from terminal.supervisor.events import tell
from terminal.supervisor.layout import EXECUTABLE, PYTHON_IN_WINE, windows
from terminal.supervisor.part import keep_lines
from terminal.supervisor.wine import end_wine

if TYPE_CHECKING:
    from pathlib import Path

    from terminal.supervisor.layout import Layout
    from terminal.supervisor.logs import BoundedLog
    from terminal.supervisor.settings import Settings

# Grows when the steps below make another prefix than before.
_FORMAT = 1
_LOOK_S = 0.1
_WINE_KEYS = "HKEY_CURRENT_USER\\Software\\Wine"
# Asking for the .NET and HTML engines would open a window that nobody closes.
_NO_QUESTIONS = {"WINEDLLOVERRIDES": "mscoree=d;mshtml=d;winemenubuilder.exe=d"}
_ONLY_MONO = {"WINEDLLOVERRIDES": "mscoree=d"}


class Stopped(Exception):
    """Somebody wants the container to end."""


class StepFailed(Exception):
    """A step did not do what it was for; the message says so in a line."""


class FirstBoot:
    """Makes the prefix.

    Args:
        layout: Where things are.
        settings: Where MetaTrader's installer is, and how long things may take.
        environment: Of everything that is started.
        log: Takes the output of the steps.
        stop: Set when the container is to end.
    """

    def __init__(
        self,
        layout: Layout,
        settings: Settings,
        environment: dict[str, str],
        log: BoundedLog,
        stop: threading.Event,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._environment = environment
        self._log = log
        self._stop = stop

    def needed(self) -> bool:
        """Whether there is no whole prefix that was made from what this image brings."""
        try:
            made = json.loads(self._layout.marker.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return True
        return bool(made != self._made_of())

    def run(self) -> None:
        """Make it, however often that has to be tried.

        Raises:
            Stopped: The container is to end.
        """
        wait_s = self._settings.timing.retry_s
        longest_s = 16 * wait_s
        while self.needed():
            try:
                self._make()
            except (OSError, StepFailed, DownloadFailed) as error:  # noqa: PERF203 - seconds apart
                tell("first_boot_failed", "error", why=str(error), again_in_s=wait_s)
                self._log.append(str(error), "ERROR")
                end_wine(self._environment)
                if self._stop.wait(wait_s):
                    raise Stopped from None
                wait_s = min(2 * wait_s, longest_s)

    def _make(self) -> None:
        began = time.monotonic()
        layout = self._layout
        layout.marker.unlink(missing_ok=True)
        steps = self._steps()
        for number, (name, step) in enumerate(steps, 1):
            self._check()
            tell("first_boot_step", step=name, number=number, of=len(steps))
            self._log.append(f"step {number} of {len(steps)}: {name}")
            step()
        draft = layout.marker.with_name(layout.marker.name + ".new")
        with draft.open("w", encoding="ascii") as file:
            json.dump(self._made_of(), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(layout.marker)
        tell("first_boot_done", seconds=round(time.monotonic() - began, 1))

    def _steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            # First what needs the world outside: without it nothing has to be undone.
            ("download MetaTrader's installer", self._download),
            ("make the prefix", self._prefix),
            ("install Mono", self._mono),
            ("install Python", self._python),
            ("install packages", self._packages),
            ("install MetaTrader", self._metatrader),
        ]

    # -- steps ------------------------------------------------------------------------------------

    def _download(self) -> None:
        # Nobody can say what it must be: there is only ever the newest.
        download(self._settings.setup_url, self._setup, None, self._check)

    def _prefix(self) -> None:
        end_wine(self._environment)
        if self._layout.prefix.exists():
            shutil.rmtree(self._layout.prefix)
        self._wine("wineboot", "--init", **_NO_QUESTIONS)
        self._settle()
        self._expect(self._layout.drive_c / "windows", "Wine made no prefix")
        # As the base image does; MetaTrader refuses older systems.
        self._wine("reg", "add", _WINE_KEYS, "/v", "Version", "/t", "REG_SZ", "/d", "win10", "/f")
        # A program that crashes is to end, not to show a window.
        self._wine(
            "reg", "add", _WINE_KEYS + "\\WineDbg", "/v", "ShowCrashDialog",
            "/t", "REG_DWORD", "/d", "0", "/f",
        )  # fmt: skip
        self._settle()

    def _mono(self) -> None:
        self._wine("msiexec", "/i", self._installer("wine-mono.msi"), "/qn", **_ONLY_MONO)
        self._settle()
        self._expect(self._layout.drive_c / "windows" / "mono", "Mono was not installed")

    def _python(self) -> None:
        target = PYTHON_IN_WINE.rpartition("\\")[0]
        self._wine(
            self._installer("python.exe"),
            "/quiet", "InstallAllUsers=1", "PrependPath=1", f"TargetDir={target}",
        )  # fmt: skip
        self._settle()
        self._expect(self._layout.python, "Python was not installed")

    def _packages(self) -> None:
        lock = windows(self._layout.image_dir / "terminal" / "wine" / "requirements.lock")
        self._in_python(
            "-m", "pip", "install", "--no-index", "--require-hashes", "--no-deps",
            "--disable-pip-version-check", "--no-cache-dir", "--no-warn-script-location",
            "--find-links", windows(self._layout.image_dir / "wheels"), "--requirement", lock,
        )  # fmt: skip
        self._in_python(
            windows(self._layout.image_dir / "terminal" / "wine" / "check_packages.py"), lock
        )
        self._settle()

    def _metatrader(self) -> None:
        self._wine(windows(self._setup), "/auto")
        executable = self._layout.installed / EXECUTABLE
        # The installer may hand over to another process before it ends.
        deadline = time.monotonic() + self._settings.timing.setup_s
        while not executable.exists() and time.monotonic() < deadline:
            if self._settle(_LOOK_S):
                break
        # It ends by starting the terminal, which is not to run from there.
        end_wine(self._environment)
        self._expect(executable, "MetaTrader was not installed")
        self._setup.unlink(missing_ok=True)

    # -- within -----------------------------------------------------------------------------------

    @property
    def _setup(self) -> Path:
        return self._layout.home / "mt5setup.exe"

    def _installer(self, name: str) -> str:
        path = self._layout.image_dir / "installers" / name
        self._expect(path, "the image lacks an installer")
        return windows(path)

    def _made_of(self) -> dict[str, object]:
        digest = hashlib.sha256()
        for part in (
            self._layout.image_dir / "terminal" / "wine" / "requirements.lock",
            self._layout.image_dir / "installers" / "SHA256SUMS",
        ):
            digest.update(part.read_bytes())
        return {"format": _FORMAT, "parts": digest.hexdigest()}

    def _in_python(self, *arguments: str) -> None:
        code = self._wine(PYTHON_IN_WINE, *arguments)
        if code:
            raise StepFailed(f"Python in Wine ended with {code}; see the log of the first boot")

    def _wine(self, *arguments: str, **variables: str) -> int:
        """Run a program in Wine; most say nothing by how they end, but by what they leave."""
        code = self._run("wine", arguments, variables, self._settings.timing.setup_s)
        if code is None:
            raise StepFailed(f"{arguments[0]} did not end in time")
        return code

    def _settle(self, limit_s: float | None = None) -> bool:
        """Wait until Wine has nothing to do, which is when its registry is on the disk."""
        limit_s = self._settings.timing.setup_s if limit_s is None else limit_s
        return self._run("wineserver", ("-w",), {}, limit_s) is not None

    def _run(
        self, program: str, arguments: tuple[str, ...], variables: dict[str, str], limit_s: float
    ) -> int | None:
        """Run a program to its end; None: it was ended because it took too long.

        Raises:
            Stopped: The container is to end.
        """
        process = subprocess.Popen(  # noqa: S603 - a command of ours
            [program, *arguments],
            env={**self._environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        threading.Thread(
            target=keep_lines, args=(process.stdout, self._log), name="log-first-boot", daemon=True
        ).start()
        deadline = time.monotonic() + limit_s
        try:
            while process.poll() is None and time.monotonic() < deadline:
                self._check()
                self._stop.wait(_LOOK_S)
            return process.poll()
        finally:
            process.kill()
            process.wait()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    @staticmethod
    def _expect(path: Path, otherwise: str) -> None:
        if not path.exists():
            raise StepFailed(f"{otherwise}: there is no {path}")

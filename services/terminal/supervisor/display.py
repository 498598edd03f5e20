"""The X display that Wine draws on: without any port, or in a browser when that was asked for."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from terminal.supervisor.part import Part
from terminal.supervisor.settings import Refused, read_secret

if TYPE_CHECKING:
    from terminal.supervisor.logs import BoundedLog
    from terminal.supervisor.settings import Settings

_SCREEN = "1280x800"
_SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108 - where every X server has its socket
# KasmVNC hashes what it is given with this salt and compares the texts.
_SALT = "kasm"
_VNC_USER = "mt5"


class Display:
    """The X server, and a window manager while somebody looks.

    Args:
        settings: Whether it can be seen, and who may.
        environment: All variables it gets.
        log: Takes its output.

    Attributes:
        parts: What has to be ticked.
    """

    def __init__(self, settings: Settings, environment: dict[str, str], log: BoundedLog) -> None:
        self._settings = settings
        self._ready = False
        # The server writes its number into this when it can be used.
        self._told, tell_fd = os.pipe()
        os.set_blocking(self._told, False)
        number = f":{settings.display}"
        always = [number, "-displayfd", str(tell_fd), "-nolisten", "tcp", "-noreset"]
        command = _seen(settings, always) if settings.vnc else _unseen(always)
        self._server = Part(
            "display", command, environment, log, prepare=self._prepare, pass_fds=(tell_fd,)
        )
        self.parts = [self._server]
        if settings.vnc:
            self._manager = Part("windows", ["openbox"], environment, log)
            self.parts.append(self._manager)

    @property
    def ready(self) -> bool:
        """Whether programs can draw on it."""
        if not self._server.running:
            return False
        with suppress(BlockingIOError):
            self._ready = bool(os.read(self._told, 64)) or self._ready
        return self._ready

    def tick(self) -> None:
        """Keep it running."""
        self._server.wanted = True
        for manager in self.parts[1:]:
            manager.wanted = self.ready
        for part in self.parts:
            part.tick()

    def stop(self) -> None:
        """End it."""
        for part in reversed(self.parts):
            part.wanted = False
            part.kill()

    def _prepare(self) -> None:
        # An X server that is not root uses this directory and does not make it.
        _SOCKETS.mkdir(mode=0o1777, exist_ok=True)
        with suppress(BlockingIOError):
            os.read(self._told, 64)
        self._ready = False
        if self._settings.vnc:
            _open_to_one(self._settings)


def _unseen(always: list[str]) -> list[str]:
    return ["Xvfb", *always, "-screen", "0", f"{_SCREEN}x24"]


def _seen(settings: Settings, always: list[str]) -> list[str]:
    """KasmVNC's X server: its only port is HTTPS, with a password."""
    where = settings.run_dir / "vnc"
    port = str(settings.vnc_port)
    return [
        "Xvnc", *always, "-geometry", _SCREEN,
        "-websocketPort", port, "-interface", "0.0.0.0",  # noqa: S104 - the container's networks
        "-sslOnly", "1", "-cert", str(where / "self.pem"), "-key", str(where / "self.pem"),
        "-httpd", "/usr/share/kasmvnc/www",
        "-KasmPasswordFile", str(where / "passwords"),
        # HTTP's basic authentication above is what asks; RFB inside it does not ask again.
        "-SecurityTypes", "None", "-AlwaysShared",
    ]  # fmt: skip


def _open_to_one(settings: Settings) -> None:
    """Write the password's hash and a certificate into memory; the password is in no argument."""
    if settings.vnc_password_file is None:
        raise Refused("the display has no password")
    where = settings.run_dir / "vnc"
    where.mkdir(mode=0o700, exist_ok=True)
    password = read_secret(settings.vnc_password_file)
    hashed = _openssl(["passwd", "-5", "-salt", _SALT, "-stdin"], password + "\n").strip()
    passwords = where / "passwords"
    passwords.touch(mode=0o600)
    passwords.write_text(f"{_VNC_USER}:{hashed}:ow\n", encoding="ascii")
    pem = str(where / "self.pem")
    _openssl(["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "3650",
              "-subj", "/CN=mt5-terminal", "-keyout", pem, "-out", pem], "")  # fmt: skip


def _openssl(arguments: list[str], typed: str) -> str:
    done = subprocess.run(  # noqa: S603 - a command of ours
        ["openssl", *arguments],  # noqa: S607 - where the base image has it
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(f"openssl {arguments[0]} failed: {done.stderr.strip()[-200:]}")
    return done.stdout

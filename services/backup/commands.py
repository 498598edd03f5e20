"""Programs of others, run with passwords that no command line shows."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backup.settings import Settings

SHOWN: Final = 2_000
"""Of what a failed program said; its end says why."""


class CommandFailed(Exception):
    """A program ended with another code than 0, or not in time."""


class Commands:
    """Runs programs, which log in to Postgres as `mt5_backup` if they log in at all.

    Args:
        settings: Where the secrets are, and where their other forms may lie.
        login: Whether they may; it takes a secret.

    Raises:
        SettingWrong: The secret cannot be used.
    """

    def __init__(self, settings: Settings, *, login: bool = False) -> None:
        private = settings.private
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        if login:
            _write(private / "pgpass", _pgpass(settings.secret("mt5_backup_password")))
        self.environment: Mapping[str, str] = {
            **os.environ,
            "HOME": str(private),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "PGPASSFILE": str(private / "pgpass"),
            "PGCONNECT_TIMEOUT": "5",
        }

    def __call__(
        self, *command: str, timeout_s: float | None = 60, env: Mapping[str, str] | None = None
    ) -> str:
        """What a program wrote to standard output.

        Raises:
            CommandFailed: It failed; with the end of what it said.
        """
        try:
            done = subprocess.run(  # noqa: S603 - ours, and none of it from outside
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**self.environment, **(env or {})},
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{command[0]}: no end within {timeout_s:.0f} s") from None
        except OSError as error:
            raise CommandFailed(f"{command[0]}: {error.strerror}") from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout).decode(errors="replace")
            words = " ".join(said.split())[-SHOWN:] or f"exit code {done.returncode}"
            raise CommandFailed(f"{Path(command[0]).name}: {words}")
        return done.stdout.decode(errors="replace")


def _pgpass(password: str) -> str:
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:mt5_backup:{escaped}\n"


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)

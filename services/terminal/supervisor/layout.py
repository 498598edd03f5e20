"""Where things are: on the volume, in the image and in memory, for Linux and for Wine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from terminal.supervisor.settings import Settings

EXECUTABLE = "terminal64.exe"
"""MetaTrader 5 itself."""
PYTHON_IN_WINE = "C:\\Python39\\python.exe"
"""Where the first boot puts Python."""


@dataclass(frozen=True)
class Layout:
    """Paths of one container.

    Attributes:
        home: The volume.
        prefix: Wine's prefix.
        run_dir: The tmpfs.
        image_dir: What the image brings.
    """

    home: Path
    prefix: Path
    run_dir: Path
    image_dir: Path

    @classmethod
    def of(cls, settings: Settings) -> Layout:
        """The layout that these settings mean."""
        return cls(settings.home, settings.prefix, settings.run_dir, settings.image_dir)

    @property
    def drive_c(self) -> Path:
        """Drive C of the prefix."""
        return self.prefix / "drive_c"

    @property
    def installed(self) -> Path:
        """Where MetaTrader's installer puts it; never run from there."""
        return self.drive_c / "Program Files" / "MetaTrader 5"

    @property
    def python(self) -> Path:
        """The Python in Wine."""
        return self.drive_c / "Python39" / "python.exe"

    @property
    def marker(self) -> Path:
        """Says that the prefix is whole, and what it was made from."""
        return self.home / "mt5-prefix.json"

    @property
    def logs(self) -> Path:
        """Logs of the parts."""
        return self.home / "logs"

    def terminal(self, number: int) -> Path:
        """A terminal's own directory."""
        return self.drive_c / "mt5" / str(number)

    def windows_terminal(self, number: int) -> str:
        """The same as Windows has it."""
        return f"C:\\mt5\\{number}"

    def run(self, number: int) -> Path:
        """A terminal's directory in memory."""
        return self.run_dir / str(number)

    def board(self, number: int) -> Path:
        """Where a terminal's RPyC server says what it is doing."""
        return self.run(number) / "board.json"


def windows(path: Path) -> str:
    """A path of Linux as Wine shows it on drive Z, which is the root of the file system."""
    return "Z:" + str(path).replace("/", "\\")

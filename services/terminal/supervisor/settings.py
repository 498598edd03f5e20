"""What the supervisor is told: by the environment, and by files for what is secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_TERMINALS = 50
"""Their ports end below the supervisor's own."""


class Refused(Exception):
    """The supervisor cannot run like this; the message is one line for a person."""


@dataclass(frozen=True)
class Timing:
    """How long things may take, in seconds.

    Attributes:
        drain_s: How long clients may take to leave after SIGTERM.
        quiet_s: They have left when nobody has been connected for so long.
        release_s: A terminal is released when nobody has been connected for so long; 0: never.
        probe_s: Between two questions to a terminal's interpreter.
        answer_s: What an answer may take.
        frozen_s: An interpreter that has not answered for so long is dead, unless in a login.
        start_s: The same before its first answer.
        restart_s: What a restart that somebody asked for may take until it is answered.
        stop_s: What a terminal may take to end when it is asked to.
        setup_s: What a step of the first boot may take.
        retry_s: Before the first boot is tried again; doubled each time, up to 16 times as long.
    """

    drain_s: float = 60.0
    quiet_s: float = 2.0
    release_s: float = 60.0
    probe_s: float = 2.0
    answer_s: float = 3.0
    frozen_s: float = 30.0
    start_s: float = 180.0
    restart_s: float = 90.0
    stop_s: float = 3.0
    setup_s: float = 900.0
    retry_s: float = 20.0


@dataclass(frozen=True)
class Settings:
    """Everything the supervisor is told.

    Attributes:
        key: Opens the control API.
        terminals: How many.
        host: Where terminals and the control API listen.
        port_base: RPyC port of the first terminal; the others follow.
        control_port: Of the control API.
        home: The volume: Wine's prefix and logs.
        prefix: Wine's prefix.
        run_dir: A tmpfs: what must never be written to a disk.
        image_dir: What the image brings: installers, wheels, this package.
        setup_url: Where MetaTrader's installer is.
        vnc: Whether the display can be seen.
        vnc_password_file: Opens it.
        vnc_port: HTTPS port of the display.
        display: Number of the X display.
        timing: How long things may take.
    """

    key: str = field(repr=False)
    terminals: int
    host: str
    port_base: int
    control_port: int
    home: Path
    prefix: Path
    run_dir: Path
    image_dir: Path
    setup_url: str
    vnc: bool
    vnc_password_file: Path | None
    vnc_port: int
    display: int
    timing: Timing

    @property
    def numbers(self) -> range:
        """Numbers of the terminals, from 1."""
        return range(1, self.terminals + 1)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read them.

        Raises:
            Refused: One is missing or makes no sense.
        """
        given = _Given(environment)
        home = Path(given.text("MT5_HOME", "/config"))
        vnc = given.flag("MT5_VNC")
        password = given.text("FILE__PASSWORD", "")
        if vnc and not password:
            raise Refused("MT5_VNC=1 wants FILE__PASSWORD, the path of a file with the password")
        if vnc:
            read_secret(Path(password))
        return cls(
            key=read_secret(Path(given.text("SUPERVISOR_KEY_FILE", "/run/secrets/supervisor_key"))),
            terminals=given.whole("TERMINALS", 1, 1, MOST_TERMINALS),
            host=given.text("MT5_HOST", "0.0.0.0"),  # noqa: S104 - the container's own networks
            port_base=given.whole("MT5_PORT_BASE", 8001, 1, 65535 - MOST_TERMINALS),
            control_port=given.whole("SUPERVISOR_PORT", 8100, 1, 65535),
            home=home,
            prefix=Path(given.text("WINEPREFIX", str(home / ".wine"))),
            run_dir=Path(given.text("MT5_RUN_DIR", "/run/mt5")),
            image_dir=Path(given.text("MT5_IMAGE_DIR", "/opt/mt5")),
            setup_url=given.text("MT5_SETUP_URL", SETUP_URL),
            vnc=vnc,
            vnc_password_file=Path(password) if password else None,
            vnc_port=given.whole("MT5_VNC_PORT", 3001, 1, 65535),
            display=given.whole("MT5_DISPLAY", 1, 0, 999),
            timing=Timing(
                drain_s=given.seconds("MT5_DRAIN_S", Timing.drain_s),
                quiet_s=given.seconds("MT5_QUIET_S", Timing.quiet_s),
                release_s=given.seconds("MT5_RELEASE_S", Timing.release_s),
                probe_s=given.seconds("MT5_PROBE_S", Timing.probe_s),
                answer_s=given.seconds("MT5_ANSWER_S", Timing.answer_s),
                frozen_s=given.seconds("MT5_FROZEN_S", Timing.frozen_s),
                start_s=given.seconds("MT5_START_S", Timing.start_s),
                setup_s=given.seconds("MT5_SETUP_S", Timing.setup_s),
                retry_s=given.seconds("MT5_SETUP_RETRY_S", Timing.retry_s),
            ),
        )


SETUP_URL = "https://download.mql5.com/cdn/web/metaquotes.software.corp/mt5/mt5setup.exe"
"""MetaQuotes' own installer, which always brings the newest build."""


def read_secret(path: Path) -> str:
    """What a file holds, without the white space around it.

    Raises:
        Refused: It cannot be read, or holds nothing.
    """
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Refused(f"{path}: {reason}") from None
    if not secret:
        raise Refused(f"{path} is empty")
    return secret


class _Given:
    """Variables of an environment, each checked as it is read."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        # An empty variable is how a stack file says that it sets none.
        return self._environment.get(name) or default

    def flag(self, name: str) -> bool:
        value = self.text(name, "0")
        if value not in ("0", "1"):
            raise Refused(f"{name} is 0 or 1, not {value!r}")
        return value == "1"

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
            raise Refused(f"{name} is a whole number from {low} to {high}, not {value!r}")
        return int(value)

    def seconds(self, name: str, default: float) -> float:
        value = self.text(name, str(default))
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise Refused(f"{name} is a number of seconds, not {value!r}")
        return seconds

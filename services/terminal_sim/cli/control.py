"""The control API as the commands see it."""

import math
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

_TIMEOUT_S = 40.0
USAGE = 2
"""Exit code of a command that was not understood."""

Url = Annotated[
    str, typer.Option(envvar="TERMINAL_SIM_URL", help="Where the control API is.", metavar="URL")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(envvar="TERMINAL_SIM_KEY_FILE", help="File with the control API's key."),
]
DEFAULT_URL = "http://127.0.0.1:8100"


class Complaint(Exception):
    """A command failed; the message is one line that a person can act on.

    Attributes:
        exit_code: Of the command.
    """

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Control:
    """Asks the control API.

    Args:
        url: Where it is.
        key_file: File with its key.
        timeout_s: How long an answer may take.

    Raises:
        Complaint: The key cannot be read.
    """

    def __init__(self, url: str, key_file: Path | None, timeout_s: float = _TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._headers = {"X-Supervisor-Key": secret(key_file)} if key_file else {}
        self._timeout_s = timeout_s

    def ask(self, method: str, *path: object, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's
        """Return the answer.

        Args:
            method: Of HTTP.
            path: Its parts; they are escaped.
            given: ``json`` and ``params``, as httpx takes them.

        Raises:
            Complaint: There is no answer, or it is a failure.
        """
        answer = self._answer(method, path, given)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Complaint(f"{self.url} is not a terminal supervisor")
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            if self._headers:
                raise Complaint(f"{self.url} has another key: the one given is wrong")
            raise Complaint(f"{self.url} wants its key: give --key-file or TERMINAL_SIM_KEY_FILE")
        if not answer.is_success:
            raise Complaint(_failure(body, answer.reason_phrase))
        return body

    def _answer(
        self, method: str, path: tuple[object, ...], given: dict[str, Any]
    ) -> httpx.Response:
        try:
            where = "/".join((self.url, *(quote(str(part), safe="") for part in path)))
            with httpx.Client(headers=self._headers, timeout=self._timeout_s) as client:
                return client.request(method, where, **given)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Complaint(
                f"no answer from {self.url} ({error}); is the simulator running, is --url right?"
            ) from None
        except UnicodeEncodeError:
            raise Complaint("what was typed is not valid Unicode", USAGE) from None


def _failure(body: dict[str, Any], otherwise: str) -> str:
    """Return the sentence of a failure, with the fields and reasons that it does not name."""
    said = str(body.get("error", otherwise))
    details = body.get("details") or {}
    reasons = {each["field"]: str(each["reason"]) for each in details.get("reasons", ())}
    rest = [
        f"{field}: {reasons[field]}" if field in reasons else field
        for field in details.get("fields", ())
        if field not in said and reasons.get(field, field) not in said
    ]
    return f"{said} {', '.join(rest)}".strip()


def finite(value: float | None) -> float | None:
    """Take a number of a command line.

    Raises:
        typer.BadParameter: It is infinite, or none.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("is not a finite number")
    return value


def secret(path: Path) -> str:
    """Read a key or a password, which other users must not see on a command line.

    Raises:
        Complaint: The file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise Complaint(f"{path}: {said}") from None

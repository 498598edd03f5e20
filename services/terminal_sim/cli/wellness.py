"""Whether all that a supervisor has started serves; also by itself, as a container's health check.

As a health check it starts every few seconds in every container, so it imports little:
`python -m terminal_sim.cli.wellness`.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TIMEOUT_S = 5.0
URL = "http://127.0.0.1:8100"
_SERVING = frozenset(("running", "draining"))
_ELSEWHERE = "elsewhere"
_AT_ONCE = 16

Ask = Callable[[str], dict[str, Any]]
"""Gives what a route of the control API answers to GET."""


class Unwell(Exception):
    """Something does not serve; says what."""


def judge(ask: Ask, host: str, timeout_s: float = TIMEOUT_S) -> str:
    """Say in a sentence what serves.

    A terminal that is being logged in holds its interpreter, as the real one does: it counts as
    well until the time its login may take is over.

    Args:
        ask: The control API.
        host: Where the terminals listen.
        timeout_s: What each may take to answer.

    Raises:
        Unwell: Something does not serve.
    """
    brokers, terminals = ask("brokers")["brokers"], ask("terminals")["terminals"]
    ill = [f"broker {b['server']} is {b['state']}" for b in brokers if not _well(b)]
    ill += [f"terminal {t['n']} is {t['state']}" for t in terminals if not _well(t)]
    serving = [each for each in terminals if each["state"] in _SERVING]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = pool.map(lambda each: _shakes_hands(each, host, timeout_s), serving)
        silent = {
            each["n"] for each, answered in zip(serving, answers, strict=True) if not answered
        }
    if silent:
        # It may have begun a login since; then it has an excuse.
        later = ask("terminals")["terminals"]
        found = [each["n"] for each in later if each["n"] in silent and not _in_login(each)]
        ill += [f"terminal {n} does not answer" for n in found]
    if ill:
        raise Unwell("; ".join(ill))
    here = [each for each in brokers if each["state"] != _ELSEWHERE]
    said = f"{_count(len(here), 'broker')} and {_count(len(terminals), 'terminal')} serve"
    away = len(brokers) - len(here)
    return f"{said}; {_count(away, 'broker')} run elsewhere" if away else said


def main() -> int:
    """Print what serves, or what does not; the exit code."""
    key = Path(os.environ["TERMINAL_SIM_KEY_FILE"]).read_text(encoding="utf-8").strip()

    def ask(route: str) -> dict[str, Any]:
        request = urllib.request.Request(f"{URL}/{route}", headers={"X-Supervisor-Key": key})  # noqa: S310 - ours
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - ours
            found: dict[str, Any] = json.load(answer)
            return found

    try:
        said, code = judge(ask, "127.0.0.1"), 0
    except (Unwell, OSError) as trouble:
        said, code = str(trouble), 1
    sys.stdout.write(f"{said}\n")
    return code


def _well(process: dict[str, Any]) -> bool:
    return process["state"] in _SERVING or process["state"] == _ELSEWHERE


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _in_login(terminal: dict[str, Any]) -> bool:
    until = terminal["in_login_until"]
    return until is not None and datetime.fromisoformat(until) > datetime.now(UTC)


def _shakes_hands(terminal: dict[str, Any], host: str, timeout_s: float) -> bool:
    """Return whether a terminal is in a login, or its interpreter answers in time."""
    if _in_login(terminal):
        return True
    from rpyc import connect_stream  # noqa: PLC0415 - brokers alone are looked at without it
    from rpyc.core.service import ClassicClient  # noqa: PLC0415
    from rpyc.core.stream import SocketStream  # noqa: PLC0415

    try:
        with closing(SocketStream.connect(host, terminal["port"], timeout=timeout_s)) as stream:
            patience = {"sync_request_timeout": timeout_s}
            link = connect_stream(stream, service=ClassicClient, config=patience)
            return bool(link.root)
    except (OSError, EOFError, TimeoutError):
        return False


if __name__ == "__main__":
    sys.exit(main())

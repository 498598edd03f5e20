"""The container's health check: every terminal answers, or is in a login whose time is not over."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terminal.supervisor.settings import Settings

_PATIENCE_S = 3.0
_LOOK_S = 0.25
_SERVING = ("running", "draining")


def ills(settings: Settings) -> list[str]:
    """A sentence for each thing that is wrong; none when all is well.

    When a login has ended just now, the last question to its terminal was not answered, and nothing
    is wrong: so there is time for the next one.
    """
    deadline = time.monotonic() + settings.timing.probe_s + settings.timing.answer_s
    while True:
        try:
            terminals = _terminals(settings)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            return [f"the supervisor does not answer: {error!r}"]
        found = [ill for terminal in terminals if (ill := _ill(terminal))]
        serving = all(terminal["state"] in _SERVING for terminal in terminals)
        if not found or not serving or time.monotonic() > deadline:
            return found
        time.sleep(_LOOK_S)


def _ill(terminal: dict[str, Any]) -> str | None:
    # A login may be the first thing that a terminal is asked: it holds the interpreter, and the
    # state is what it was before.
    if terminal["in_login_until"] is not None:
        return None
    if terminal["state"] not in _SERVING:
        return f"terminal {terminal['n']} is {terminal['state']}"
    if terminal["answering"]:
        return None
    return f"terminal {terminal['n']} does not answer"


def _terminals(settings: Settings) -> list[dict[str, Any]]:
    link = http.client.HTTPConnection("127.0.0.1", settings.control_port, timeout=_PATIENCE_S)
    try:
        link.request("GET", "/terminals", headers={"X-Supervisor-Key": settings.key})
        answer = link.getresponse()
        body = json.loads(answer.read())
        terminals: list[dict[str, Any]] = body["terminals"]
        return terminals
    finally:
        link.close()

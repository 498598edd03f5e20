"""The container's health check: every terminal answers, or is in a login whose time is not over."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terminal.supervisor.settings import Settings

_PATIENCE_S = 5.0
_SERVING = ("running", "draining")


def ills(settings: Settings) -> list[str]:
    """A sentence for each thing that is wrong; none when all is well."""
    try:
        terminals = _terminals(settings)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return [f"the supervisor does not answer: {error!r}"]
    return [ill for terminal in terminals if (ill := _ill(terminal))]


def _ill(terminal: dict[str, Any]) -> str | None:
    if terminal["state"] not in _SERVING:
        return f"terminal {terminal['n']} is {terminal['state']}"
    if terminal["answering"] or terminal["in_login_until"] is not None:
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

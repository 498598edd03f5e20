"""The supervisor's HTTP API."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from terminal_sim.supervisor.fleet import LOG_LINES, Fleet, Member
from terminal_sim.terminal.wire import iso

VERSION = "5.0.5430"
"""What the simulated terminals call themselves."""

# A forked process starts in a fraction of a second; beyond this something is wrong.
_RESTART_S = 30.0
_RETRY_S = 5
_CODES = {
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    422: "INVALID_PARAMETERS",
    503: "TERMINAL_UNAVAILABLE",
}
_OPEN_PATHS = frozenset(("/health/live",))


def create_app(fleet: Fleet, key: str | None) -> FastAPI:
    """Return the API over a fleet; without a key anybody who reaches it may use it."""
    app = FastAPI(title="Terminal supervisor", openapi_url=None, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_key(app, key)
    _add_routes(app, fleet)
    return app


def _add_routes(app: FastAPI, fleet: Fleet) -> None:
    @app.get("/health/live")
    async def live() -> dict[str, Any]:
        return {"success": True, "status": "ok"}

    @app.get("/terminals")
    async def terminals() -> dict[str, Any]:
        states = await asyncio.to_thread(lambda: [_state(fleet, member) for member in fleet])
        return {"success": True, "terminals": states}

    @app.post("/terminals/{number}/restart")
    async def restart(number: int) -> dict[str, Any]:
        member = _member(fleet, number)
        try:
            await asyncio.wait_for(member.restart(), _RESTART_S)
        except TimeoutError:
            raise HTTPException(503, f"Terminal {number} did not start again in time.") from None
        return {"success": True, "terminal": _state(fleet, member)}

    @app.get("/terminals/{number}/logs")
    async def logs(
        number: int, lines: Annotated[int, Query(ge=1, le=LOG_LINES)] = 100
    ) -> dict[str, Any]:
        return {"success": True, "logs": _lines(_member(fleet, number), lines)}

    @app.post("/drain")
    async def drain() -> dict[str, Any]:
        fleet.draining = True
        return {"success": True, "draining": True}


def _add_key(app: FastAPI, key: str | None) -> None:
    @app.middleware("http")
    async def check_key(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        given = request.headers.get("X-Supervisor-Key", "")
        right = key is None or compare_digest(given.encode(), key.encode())
        if right or request.url.path in _OPEN_PATHS:
            return await proceed(request)
        return _failure(401, "The header X-Supervisor-Key is missing or wrong.")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(StarletteHTTPException)
    async def refused(_request: Request, error: StarletteHTTPException) -> JSONResponse:
        return _failure(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        fields = [".".join(map(str, fault["loc"])) for fault in error.errors()]
        return _failure(422, "A parameter is not valid.", {"fields": fields})

    @app.exception_handler(Exception)
    async def broken(_request: Request, _error: Exception) -> JSONResponse:
        return _failure(500, "Something went wrong in the supervisor.")


def _failure(status: int, sentence: str, details: dict[str, Any] | None = None) -> JSONResponse:
    retry = _RETRY_S if status == 503 else None  # noqa: PLR2004 - an HTTP status
    body = {
        "success": False,
        "error": sentence,
        "code": _CODES.get(status, "INTERNAL"),
        "details": details or {},
        "retry_after_s": retry,
        "request_id": uuid4().hex,
    }
    return JSONResponse(body, status, {"Retry-After": str(retry)} if retry else None)


def _member(fleet: Fleet, number: int) -> Member:
    member = fleet.members.get(number)
    if member is None:
        raise HTTPException(404, f"There is no terminal {number}.")
    return member


def _lines(member: Member, count: int) -> list[dict[str, str]]:
    return [
        {"timestamp": line.timestamp, "level": line.level, "message": line.message}
        for line in list(member.log)[-count:]
    ]


def _state(fleet: Fleet, member: Member) -> dict[str, Any]:
    until_ms, login = member.board.read()
    draining = fleet.draining and member.state == "running"
    return {
        "n": member.settings.number,
        "port": member.settings.port,
        "pid": member.pid,
        "state": "draining" if draining else member.state,
        "in_login_until": iso(until_ms) if until_ms > time.time_ns() // 1_000_000 else None,
        "memory_bytes": memory_bytes(member.pid),
        "version": VERSION,
        "restarts": member.restarts,
        "started_at": iso(member.started_ms) if member.started_ms else None,
        "logged_in": login or None,
    }


def memory_bytes(pid: int | None) -> int | None:
    """Return the proportional share of a process's memory, or None where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:  # it just ended, or this is not Linux
        return None
    lines = (line.split() for line in text.splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "Pss:"), None)

"""The supervisor's HTTP API."""

from collections.abc import Awaitable, Callable
from hmac import compare_digest
from typing import Any

from fastapi import FastAPI, Request, Response

from terminal_sim.supervisor.account_routes import account_routes
from terminal_sim.supervisor.errors import add_errors, failure
from terminal_sim.supervisor.fault_book import FaultBook
from terminal_sim.supervisor.fault_routes import fault_routes
from terminal_sim.supervisor.fleet import Fleet
from terminal_sim.supervisor.limits import BodyLimit
from terminal_sim.supervisor.process_routes import process_routes

_OPEN_PATHS = frozenset(("/health/live",))


def create_app(fleet: Fleet, book: FaultBook, key: str | None) -> FastAPI:
    """Return the API over a fleet; without a key anybody who reaches it may use it."""
    app = FastAPI(title="Terminal supervisor", openapi_url=None, docs_url=None, redoc_url=None)
    add_errors(app)
    _add_key(app, key)
    app.add_middleware(BodyLimit)

    @app.get("/health/live")
    async def live() -> dict[str, Any]:
        return {"success": True, "status": "ok"}

    app.include_router(process_routes(fleet))
    app.include_router(fault_routes(book))
    app.include_router(account_routes(fleet))
    return app


def _add_key(app: FastAPI, key: str | None) -> None:
    @app.middleware("http")
    async def check_key(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        given = request.headers.get("X-Supervisor-Key", "")
        right = key is None or compare_digest(given.encode(), key.encode())
        if right or request.url.path in _OPEN_PATHS:
            return await proceed(request)
        return failure(401, "The header X-Supervisor-Key is missing or wrong.")

"""The console's application: sign-in, gate, page, service routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

import nicegui
from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles
from nicegui import Client, ui
from prometheus_client import CollectorRegistry
from starlette.responses import RedirectResponse

from console.api_client import ApiClient
from console.gate import COOKIE, ROOT, STATIC, SessionGate
from console.page import ConsolePage
from console.sessions import Sessions
from console.settings import ConsoleSettings
from console.sign_in import HOME, SignIn, sign_in_routes
from mt5kit import __version__
from mt5kit.telemetry.errors_http import install_failure_handlers
from mt5kit.telemetry.http import Envelope, service_routes
from mt5kit.telemetry.http_metrics import HttpMetrics

TITLE: Final = "mt5-swarm console"
_FILES: Final = Path(__file__).parent / "static"
_HEAD: Final = (
    f'<script src="{STATIC}/console.js"></script>'
    f'<link rel="stylesheet" href="{STATIC}/console.css">'
)
# A phone that changes cells comes back to the same page within this.
RECONNECT_S: Final = 10.0
# A page whose browser never opens its socket is forgotten after this.
CONNECT_S: Final = 30.0


def create_app(settings: ConsoleSettings) -> FastAPI:
    """The console as an application of its own; everything a browser sees lies under /console.

    One at a time in a process, for NiceGUI keeps its own application in a module. The lifespan
    starts NiceGUI, and at the end closes the pages' streams and the API client.
    """
    sessions = Sessions(settings.session_secret.get_secret_value())
    pages = OpenPages(settings, sessions)
    registry = CollectorRegistry()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with pages.api:
            try:
                yield
            finally:
                await pages.aclose()

    async def readiness() -> dict[str, object]:
        return {"open_pages": pages.count}

    app = FastAPI(
        title=TITLE,
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.include_router(sign_in_routes(SignIn.from_settings(settings, sessions)))
    app.include_router(service_routes(registry, readiness))
    app.add_api_route(ROOT, _home, include_in_schema=False)
    app.mount(STATIC, StaticFiles(directory=_FILES), name="console-static")
    install_failure_handlers(app)
    # One NiceGUI a process: an application made earlier, and ended, has left its middleware.
    nicegui.app.user_middleware.clear()
    nicegui.app.middleware_stack = None
    ui.page("/", title=TITLE)(pages.open)
    ui.run_with(
        app,
        mount_path=ROOT,
        title=TITLE,
        favicon=(_FILES / "icon.svg").read_text(encoding="utf-8"),
        reconnect_timeout=RECONNECT_S,
        binding_refresh_interval=None,
        tailwind=False,
        language="en-US",
        show_welcome_message=False,
    )
    # The last added is the outermost.
    app.add_middleware(SessionGate, sessions=sessions)
    app.add_middleware(Envelope, metrics=HttpMetrics(registry))
    return app


class OpenPages:
    """Every page that a browser shows now, and what they share."""

    def __init__(self, settings: ConsoleSettings, sessions: Sessions) -> None:
        self._sessions = sessions
        self.api = ApiClient.from_settings(settings)
        self._user_id = settings.user_id
        self._pages: set[ConsolePage] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._pages)

    async def open(self, request: Request, client: Client) -> None:
        """Build a page, and run it once its browser has opened its socket."""
        ui.add_head_html(_HEAD)
        cookie = request.cookies.get(COOKIE, "")
        page = ConsolePage(
            self.api,
            client,
            _uuid(request.query_params.get("user")) or self._user_id,
            request.query_params.get("account", ""),
            lambda: self._sessions.valid(cookie),
        )

        async def close() -> None:
            self._pages.discard(page)
            await page.aclose()

        client.on_delete(close)
        await client.connected(timeout=CONNECT_S)
        if client.is_deleted:
            return
        self._pages.add(page)
        await page.start()

    async def aclose(self) -> None:
        """End every page's stream."""
        while self._pages:
            await self._pages.pop().aclose()


def _home() -> RedirectResponse:
    return RedirectResponse(HOME, 307)


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None

"""The WebSocket pool's application: the stream's route, service routes, lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from mt5kit.telemetry.errors_http import install_failure_handlers
from mt5kit.telemetry.http import Envelope, service_routes
from mt5kit.telemetry.readiness import dependencies
from websocket_pool.context import StreamContext
from websocket_pool.routes.account import HideQuery, account_routes
from websocket_pool.routes.missing import missing_routes


def create_app(context: StreamContext) -> FastAPI:
    """The application of one replica.

    Its lifespan starts the context (leases, orders, tickets), and at the end closes every socket
    with 1012, gives terminals and leases back and closes the context.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        context.start()
        try:
            yield
        finally:
            await context.aclose()

    async def readiness() -> dict[str, object]:
        return context.describe() | {"dependencies": await dependencies(context.probes())}

    app = FastAPI(
        title="mt5-swarm streams",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.include_router(account_routes(context.door))
    app.include_router(service_routes(context.wiring.registry, readiness))
    app.include_router(missing_routes())
    install_failure_handlers(app)
    app.add_middleware(Envelope, metrics=context.http_metrics)
    # The last added is the outermost.
    app.add_middleware(HideQuery)
    return app

"""The API pool's application: routes, middleware, lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api_pool.context import ProcessContext
from api_pool.gate import KeyGate
from api_pool.routes import accounts, health, history, reads, streams
from mt5kit.telemetry.errors_http import install_failure_handlers
from mt5kit.telemetry.http import Envelope, service_routes
from mt5kit.telemetry.readiness import dependencies


def create_app(context: ProcessContext) -> FastAPI:
    """The application of one replica.

    Its lifespan takes leases and connects to terminals, and at the end gives the leases back
    and closes the context.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await context.fleet.start()
        try:
            yield
        finally:
            await context.aclose()

    async def readiness() -> dict[str, object]:
        probes = {"redis": context.redis_probe.ping, "postgres": context.database.ping}
        return {
            "instance_id": context.settings.instance_id,
            "dependencies": await dependencies(probes),
            "terminals": context.fleet.describe(),
        }

    app = FastAPI(
        title="mt5-swarm",
        version=version("mt5-swarm"),
        lifespan=lifespan,
        docs_url=None,
        openapi_url="/api/openapi.json",
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    for routes in (accounts, reads, history, streams, health):
        app.include_router(routes.router)
    app.include_router(reads.by_header)
    app.include_router(service_routes(context.registry, readiness))
    install_failure_handlers(app)
    # The last added is the outermost.
    app.add_middleware(KeyGate, rules=context.gate)
    app.add_middleware(Envelope, metrics=context.http_metrics)
    return app

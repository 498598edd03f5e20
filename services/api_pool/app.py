"""The API pool's application: routes, middleware, lifespan."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api_pool.context import ProcessContext
from api_pool.gate import KeyGate
from api_pool.routes import accounts, capacity, health, history, internal, reads, streams
from mt5kit import __version__
from mt5kit.domain.instants import now_ms
from mt5kit.state.postgres import RequestLog
from mt5kit.telemetry.errors_http import install_failure_handlers
from mt5kit.telemetry.http import Answered, Envelope, service_routes
from mt5kit.telemetry.readiness import dependencies

# What load balancers, Docker and Prometheus ask every few seconds tells nothing of callers.
UNLOGGED = frozenset({"/api/health", "/health/live", "/health/ready", "/metrics"})


def create_app(context: ProcessContext) -> FastAPI:
    """The application of one replica.

    Its lifespan takes leases and connects to terminals, and at the end gives the leases back
    and closes the context.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            context.start()
            yield
        finally:
            await context.aclose()

    async def readiness() -> dict[str, object]:
        probes = {"redis": context.redis_probe.ping, "postgres": context.database.ping}
        return {
            "instance_id": context.settings.instance_id,
            "draining": context.draining.is_set(),
            "dependencies": await dependencies(probes),
            "terminals": context.fleet.describe(),
        }

    app = FastAPI(
        title="mt5-swarm",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        openapi_url="/api/openapi.json",
        redoc_url=None,
        redirect_slashes=False,
        # We measure for ourselves; asking OpenTelemetry whether it would costs every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.context = context
    reads.install_reads(app)
    for routes in (accounts, history, streams, capacity, health, internal):
        app.include_router(routes.router)
    app.include_router(service_routes(context.registry, readiness))
    install_failure_handlers(app)
    # The last added is the outermost.
    app.add_middleware(KeyGate, rules=context.gate)
    app.add_middleware(Envelope, metrics=context.http_metrics, on_answer=logging_to(context))
    return app


def logging_to(context: ProcessContext) -> Callable[[Answered], None]:
    """Puts each answered request on its way into the request log."""
    instance_id, writer = context.settings.instance_id, context.request_log

    def log_request(answered: Answered) -> None:
        if answered.route in UNLOGGED:
            return
        writer.add(
            RequestLog(
                created_at_ms=now_ms(),
                request_id=answered.request_id,
                endpoint=answered.route,
                method=answered.method,
                status_code=answered.status,
                response_time_ms=round(answered.elapsed_ms),
                instance_id=instance_id,
                turn=answered.turn,
                code=answered.code,
                account_id=answered.account_id,
                user_id=answered.user_id,
            )
        )

    return log_request

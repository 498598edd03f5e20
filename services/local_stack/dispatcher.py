"""Several applications behind one port: the part nginx plays in a Swarm."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# `/services/<name>/…` reaches a service's own routes, metrics among them; nginx routes no such.
SERVICES = "/services/"


class Dispatcher:
    """An ASGI application that hands each connection to an app by its path.

    Args:
        apps: By name; they start in this order and stop in the reverse one.
        prefixes: Which app a path prefix belongs to.
        fallback: The app that answers everything else.
    """

    def __init__(
        self, apps: Mapping[str, FastAPI], prefixes: Mapping[str, str], fallback: str
    ) -> None:
        self._apps = apps
        self._prefixes = prefixes
        self._fallback = fallback

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All apps started; they stop when it is left."""
        async with AsyncExitStack() as stack:
            for app in self._apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand one connection over."""
        path = scope["path"]
        if path == "/" and scope["type"] == "http":
            await RedirectResponse("/console")(scope, receive, send)
            return
        app, scope = self._route(path, scope)
        await app(scope, receive, send)

    def _route(self, path: str, scope: Scope) -> tuple[ASGIApp, Scope]:
        if path.startswith(SERVICES):
            name, _, rest = path.removeprefix(SERVICES).partition("/")
            if name in self._apps:
                inner = f"/{rest}"
                return self._apps[name], {**scope, "path": inner, "raw_path": inner.encode()}
        for prefix, name in self._prefixes.items():
            if path == prefix or path.startswith(f"{prefix}/"):
                return self._apps[name], scope
        return self._apps[self._fallback], scope

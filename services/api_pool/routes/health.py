"""The public health page: market terminals by symbol."""

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from mt5kit import __version__

router = APIRouter(prefix="/api", tags=["health"])


@router.get("/health")
async def health() -> Response:
    """Market terminals and their state; with none configured the totals are 0 and all is well."""
    body = {
        "status": "ok",
        "version": __version__,
        "total_terminals": 0,
        "connected_terminals": 0,
        "terminals": {},
    }
    return Response(orjson.dumps(body), media_type="application/json")

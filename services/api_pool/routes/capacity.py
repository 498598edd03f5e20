"""How full the pools are, for whoever scales them."""

from fastapi import APIRouter
from starlette.responses import Response

from api_pool.answers import answer
from api_pool.routes.requests import Context

router = APIRouter(prefix="/api/metrics", tags=["capacity"])


@router.get("/capacity")
async def capacity(context: Context) -> Response:
    """Sessions and streams in use beside those there is room for, over all replicas."""
    return answer(await context.capacity.measure())

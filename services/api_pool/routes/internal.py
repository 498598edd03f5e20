"""Turns that another replica forwards; nginx routes no `/internal/`."""

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from api_pool.answers import JsonResponse
from api_pool.forwarding import PATH, ForwardedAnswer, ForwardedError, ForwardedTurn
from api_pool.routes.requests import Context
from mt5kit.errors import InvalidParameters, Mt5SwarmError
from mt5kit.telemetry.http import mark_turn

router = APIRouter(include_in_schema=False)


@router.post(PATH)
async def take_turn(request: Request, context: Context) -> Response:
    """Take a turn on a terminal of ours; it is never forwarded again."""
    try:
        asked = msgspec.json.decode(await request.body(), type=ForwardedTurn)
    except msgspec.DecodeError as odd:
        raise InvalidParameters(f"this is no forwarded turn: {odd}") from odd
    mark_turn(request)
    try:
        taken = await context.local_turns.take(asked.terminal_id, asked.turn, asked.deadline_s)
    except Mt5SwarmError as failure:
        told = ForwardedAnswer(error=ForwardedError.of(failure))
    else:
        told = ForwardedAnswer(taken=taken)
    return JsonResponse(msgspec.json.encode(told))

"""Assigning live streams."""

from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api_pool.answers import answer
from api_pool.routes.accounts import OptionalUser
from api_pool.routes.requests import ACCOUNT_ID, Context, asked_in_body

router = APIRouter(prefix="/api/ws", tags=["streams"])


class AssignBody(BaseModel):
    """Names what to stream."""

    model_config = ConfigDict(extra="forbid")

    account_id: str = Field(pattern=ACCOUNT_ID)
    user_id: UUID | None = None
    scope: Literal["account"] = "account"


@router.post("/assign")
async def assign(
    request: Request, context: Context, body: AssignBody, x_user_id: OptionalUser = None
) -> Response:
    """Reserve a stream terminal and give a ticket for its socket."""
    asked = asked_in_body(request, context, x_user_id, body.user_id, body.account_id)
    return answer(await context.assigner.assign(asked.user, await asked.find()))

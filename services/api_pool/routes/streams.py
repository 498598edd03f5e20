"""Assigning live streams."""

from typing import Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api_pool.answers import answer
from api_pool.routes.accounts import OptionalUser
from api_pool.routes.requests import ACCOUNT_ID, AskedAccount, Context, agreed_user

router = APIRouter(prefix="/api/ws", tags=["streams"])


class AssignBody(BaseModel):
    """Names what to stream."""

    model_config = ConfigDict(extra="forbid")

    account_id: str = Field(pattern=ACCOUNT_ID)
    user_id: UUID | None = None
    scope: Literal["account"] = "account"


@router.post("/assign")
async def assign(context: Context, body: AssignBody, x_user_id: OptionalUser = None) -> Response:
    """Reserve a stream terminal and give a ticket for its socket."""
    user = agreed_user(x_user_id, body.user_id)
    account = await AskedAccount(context, user, body.account_id).find()
    return answer(await context.assigner.assign(user, account))

"""Connecting, disconnecting and listing accounts."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from starlette.responses import Response

from api_pool.answers import (
    AccountAnswer,
    AccountDetail,
    AccountEntry,
    AccountsAnswer,
    DoneAnswer,
    answer,
)
from api_pool.routes.requests import (
    ACCOUNT_ID,
    AccountInPath,
    AskedAccount,
    Context,
    User,
    agreed_user,
)
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.instants import iso_utc
from mt5kit.secret import Secret
from mt5kit.telemetry.http import mark_turn
from mt5kit.terminal.credentials import Credentials

router = APIRouter(prefix="/api/mt5", tags=["accounts"])

OptionalUser = Annotated[UUID | None, Header(alias="X-User-ID")]
# A server's name is printable and has no blanks at its ends; MetaTrader's field holds 64.
_SERVER = r"^[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,98}[^\s\x00-\x1f\x7f])?$"


class ConnectBody(BaseModel):
    """What connects an account."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    user_id: UUID | None = None
    account_id: str = Field(pattern=ACCOUNT_ID)
    login: int = Field(gt=0, lt=2**63, strict=True)
    password: SecretStr = Field(min_length=1, max_length=128)
    server: str = Field(pattern=_SERVER)

    @field_validator("password")
    @classmethod
    def _is_text(cls, password: SecretStr) -> SecretStr:
        if "\x00" in password.get_secret_value():
            raise ValueError("a password holds no NUL")
        Secret(password.get_secret_value())
        return password


class AccountBody(BaseModel):
    """Names an account."""

    model_config = ConfigDict(extra="forbid")

    account_id: str = Field(pattern=ACCOUNT_ID)
    user_id: UUID | None = None


@router.post("/connect")
async def connect(
    request: Request, context: Context, body: ConnectBody, x_user_id: OptionalUser = None
) -> Response:
    """Log an account in; only credentials that logged in are kept, sealed."""
    mark_turn(request)
    context.account_limiter.admit(body.account_id)
    user = agreed_user(x_user_id, body.user_id)
    password = Secret(body.password.get_secret_value())
    credentials = Credentials(AccountIdentity(body.login, body.server), password)
    return answer(await context.connector.connect(user, body.account_id, credentials))


@router.post("/disconnect")
async def disconnect(
    context: Context, body: AccountBody, x_user_id: OptionalUser = None
) -> Response:
    """End an account's session and streams; its credentials stay."""
    user = agreed_user(x_user_id, body.user_id)
    account = await AskedAccount(context, user, body.account_id).find()
    await context.connector.disconnect(account)
    return answer(DoneAnswer())


@router.get("/accounts")
async def accounts(context: Context, user: User) -> Response:
    """The user's accounts and the state each is in."""
    entries = [
        AccountEntry(
            account_id=account.account_id,
            login=account.identity.login,
            server=account.identity.server,
            state=account.state,
        )
        for account in await context.directory.of_user(user)
    ]
    return answer(AccountsAnswer(accounts=entries))


@router.get("/account/{account_id}")
async def account_state(asked: AccountInPath) -> Response:
    """One account, the state it is in, since when, and the last error."""
    account = await asked.find()
    detail = AccountDetail(
        account_id=account.account_id,
        login=account.identity.login,
        server=account.identity.server,
        state=account.state,
        since=iso_utc(account.row.state_since_ms),
        last_error=account.row.last_error,
    )
    return answer(AccountAnswer(account=detail))

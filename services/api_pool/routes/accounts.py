"""Connecting, disconnecting and listing accounts."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Path, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from starlette.responses import Response

from api_pool.answers import (
    AccountAnswer,
    AccountDetail,
    AccountEntry,
    AccountsAnswer,
    DoneAnswer,
    SyncAccepted,
    SyncAnswer,
    answer,
)
from api_pool.gate import actor_of
from api_pool.routes.requests import (
    ACCOUNT_ID,
    AccountInPath,
    Context,
    User,
    asked_in_body,
)
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.instants import iso_utc
from mt5kit.errors import NotFound
from mt5kit.secret import Secret
from mt5kit.state.postgres import AccountError
from mt5kit.telemetry.http import mark_turn
from mt5kit.terminal.credentials import Credentials

router = APIRouter(prefix="/api/mt5", tags=["accounts"])

SYNC_ID = r"^[0-9a-f-]{36}$"
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


class SyncBody(BaseModel):
    """How far back a sync reads."""

    model_config = ConfigDict(extra="forbid")

    history_days: int = Field(default=30, ge=1, le=3650, strict=True)


@router.post("/connect")
async def connect(
    request: Request, context: Context, body: ConnectBody, x_user_id: OptionalUser = None
) -> Response:
    """Log an account in; only credentials that logged in are kept, sealed."""
    mark_turn(request)
    asked = asked_in_body(request, context, x_user_id, body.user_id, body.account_id)
    asked.admit()
    password = Secret(body.password.get_secret_value())
    credentials = Credentials(AccountIdentity(body.login, body.server), password)
    return answer(await context.connector.connect(asked.user, asked.account_id, credentials))


@router.post("/disconnect")
async def disconnect(
    request: Request, context: Context, body: AccountBody, x_user_id: OptionalUser = None
) -> Response:
    """End an account's session and streams; its credentials stay."""
    asked = asked_in_body(request, context, x_user_id, body.user_id, body.account_id)
    account = await asked.find_now()
    await context.connector.disconnect(account)
    return answer(DoneAnswer())


@router.delete("/account/{account_id}")
async def delete(request: Request, context: Context, asked: AccountInPath) -> Response:
    """Erase an account's credentials and state, and end its session and streams."""
    account = await asked.find_now()
    await context.connector.delete(account, actor_of(request), request.scope["mt5.request_id"])
    return answer(DoneAnswer())


@router.post("/account/{account_id}/sync")
async def sync(context: Context, asked: AccountInPath, body: SyncBody | None = None) -> Response:
    """Read the account's state and past once more; the answer names the job."""
    account = await asked.find_now()
    account.require_connected()
    days = (body or SyncBody()).history_days
    await context.places.place(account.account_id)
    job = await context.syncs.create(account.account_id, str(asked.user), days)
    return answer(SyncAccepted(sync_id=job.sync_id), HTTPStatus.ACCEPTED)


@router.get("/sync/{sync_id}")
async def sync_status(
    context: Context, user: User, sync_id: Annotated[str, Path(pattern=SYNC_ID)]
) -> Response:
    """How far a sync job is; it is known for a day."""
    job = await context.syncs.get(sync_id)
    if job is None or job.user_id != str(user):
        raise NotFound(f"no sync job {sync_id!r}")
    return answer(
        SyncAnswer(
            sync_id=job.sync_id,
            account_id=job.account_id,
            status=job.status,
            progress=job.progress,
            deals=job.deals,
            orders=job.orders,
            error=None if job.error is None else AccountError(job.error.code, job.error.message),
        )
    )


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
    account = await asked.find_now()
    detail = AccountDetail(
        account_id=account.account_id,
        login=account.identity.login,
        server=account.identity.server,
        state=account.state,
        since=iso_utc(account.row.state_since_ms),
        last_error=account.row.last_error,
    )
    return answer(AccountAnswer(account=detail))

"""What routes read from a request: the user, the account, the age they will take.

The dependencies are coroutines though none waits: FastAPI runs plain functions in a thread each,
which cost a read five hops, a millisecond.
"""

from dataclasses import dataclass
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request
from starlette.types import Scope

from api_pool.context import ProcessContext
from api_pool.directory import KnownAccount
from mt5kit.errors import InvalidParameters
from mt5kit.telemetry.http import ACCOUNT_KEY, USER_KEY

ACCOUNT_ID: Final = r"^[A-Za-z0-9_-]{1,64}$"
LONGEST_AGE_MS: Final = 24 * 3_600_000


def context_in(scope: Scope) -> ProcessContext:
    """The process context that was put into the app.

    Raises:
        TypeError: The app was made without it.
    """
    context = scope["app"].state.context
    if not isinstance(context, ProcessContext):
        raise TypeError("the app was started without its context")
    return context


async def context_of(request: Request) -> ProcessContext:
    """The same, for FastAPI."""
    return context_in(request.scope)


Context = Annotated[ProcessContext, Depends(context_of)]


async def user_of(
    request: Request,
    x_user_id: Annotated[UUID, Header(description="The end user, a UUID.")],
) -> UUID:
    """The end user of a request without a body."""
    request.scope[USER_KEY] = x_user_id
    return x_user_id


User = Annotated[UUID, Depends(user_of)]


def asked_in_body(
    request: Request, context: ProcessContext, header: UUID | None, body: UUID | None, account: str
) -> "AskedAccount":
    """The account that a body names, of the user named in header or body.

    Raises:
        InvalidParameters: Neither names a user, or they differ.
    """
    user = agreed_user(header, body)
    note_named(request.scope, user, account)
    return AskedAccount(context, user, account)


def agreed_user(header: UUID | None, body: UUID | None) -> UUID:
    """The user named in header or body.

    Raises:
        InvalidParameters: Neither names one, or they differ.
    """
    user = header or body
    if user is None:
        raise InvalidParameters("name the user in X-User-ID or in the body's user_id")
    if header is not None and body is not None and header != body:
        raise InvalidParameters("X-User-ID and the body's user_id differ")
    return user


def note_named(scope: Scope, user: UUID, account_id: str) -> None:
    """Leave in the scope whom and what a request names, for its record."""
    scope[USER_KEY] = user
    scope[ACCOUNT_KEY] = account_id


@dataclass(slots=True)
class AskedAccount:
    """The account a request names; looked up only when the rest of the request is in order."""

    context: ProcessContext
    user: UUID
    account_id: str

    async def find(self) -> KnownAccount:
        """The account as it stood a moment ago, if it is the user's and not asked for too often.

        Raises:
            AccountNotFound: There is none, or it is another user's.
            RateLimited: Too many requests for this account.
        """
        self.admit()
        directory = self.context.directory
        kept = directory.kept(self.user, self.account_id)
        return kept or await directory.find(self.user, self.account_id)

    async def find_now(self) -> KnownAccount:
        """The account as it stands in the database; raises as `find` does."""
        self.admit()
        return await self.context.directory.find_now(self.user, self.account_id)

    def admit(self) -> None:
        """Count a request; raises RateLimited.

        By user and account: what strangers ask of the account is not counted against its user.
        """
        self.context.account_limiter.admit(f"{self.user}/{self.account_id}")


async def account_in_path(
    request: Request,
    context: Context,
    user: User,
    account_id: Annotated[str, Path(pattern=ACCOUNT_ID)],
    x_account_id: Annotated[str | None, Header()] = None,
) -> AskedAccount:
    """The account named in the path.

    Raises:
        InvalidParameters: `X-Account-ID` names another.
    """
    if x_account_id not in (None, account_id):
        raise InvalidParameters("X-Account-ID and the path name different accounts")
    note_named(request.scope, user, account_id)
    return AskedAccount(context, user, account_id)


async def account_in_header(
    request: Request,
    context: Context,
    user: User,
    x_account_id: Annotated[str, Header(pattern=ACCOUNT_ID)],
) -> AskedAccount:
    """The account named in `X-Account-ID`."""
    note_named(request.scope, user, x_account_id)
    return AskedAccount(context, user, x_account_id)


AccountInPath = Annotated[AskedAccount, Depends(account_in_path)]
AccountInHeader = Annotated[AskedAccount, Depends(account_in_header)]


async def max_age(
    context: Context,
    max_age_ms: Annotated[int | None, Query(ge=0, le=LONGEST_AGE_MS)] = None,
    fresh: Annotated[bool, Query()] = False,
) -> int:
    """The age in milliseconds that the caller takes; `fresh=1` is 0."""
    if fresh:
        return 0
    return context.default_max_age_ms if max_age_ms is None else max_age_ms


MaxAge = Annotated[int, Depends(max_age)]


async def symbol_filter(
    symbol: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
) -> str | None:
    """The symbol to keep, or None for all.

    Raises:
        InvalidParameters: It holds control characters or half a surrogate pair.
    """
    if symbol is not None and not symbol.isprintable():
        raise InvalidParameters("symbol holds characters that no symbol has")
    return symbol


SymbolFilter = Annotated[str | None, Depends(symbol_filter)]

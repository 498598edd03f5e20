"""What routes read from a request: the user, the account, the age they will take."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request

from api_pool.context import ProcessContext
from api_pool.directory import KnownAccount
from mt5kit.errors import InvalidParameters

ACCOUNT_ID = r"^[A-Za-z0-9_-]{1,64}$"
# What 20 sessions on one terminal at 1.5 s a switch leave room for (contracts §1).
DEFAULT_MAX_AGE_MS = 60_000
LONGEST_AGE_MS = 24 * 3_600_000


def context_of(request: Request) -> ProcessContext:
    """The process context that the lifespan put into the app."""
    context = request.app.state.context
    if not isinstance(context, ProcessContext):
        raise TypeError("the app was started without its context")
    return context


Context = Annotated[ProcessContext, Depends(context_of)]


def user_of(
    x_user_id: Annotated[UUID, Header(description="The end user, a UUID.")],
) -> UUID:
    """The end user of a request without a body."""
    return x_user_id


User = Annotated[UUID, Depends(user_of)]


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


@dataclass(frozen=True, slots=True)
class AskedAccount:
    """The account a request names; looked up only when the rest of the request is in order."""

    context: ProcessContext
    user: UUID
    account_id: str

    async def find(self) -> KnownAccount:
        """The account, if it is the user's and not asked for too often.

        Raises:
            AccountNotFound: There is none, or it is another user's.
            RateLimited: Too many requests for this account.
        """
        self.context.account_limiter.admit(self.account_id)
        return await self.context.directory.find(self.user, self.account_id)


def account_in_path(
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
    return AskedAccount(context, user, account_id)


def account_in_header(
    context: Context, user: User, x_account_id: Annotated[str, Header(pattern=ACCOUNT_ID)]
) -> AskedAccount:
    """The account named in `X-Account-ID`."""
    return AskedAccount(context, user, x_account_id)


AccountInPath = Annotated[AskedAccount, Depends(account_in_path)]
AccountInHeader = Annotated[AskedAccount, Depends(account_in_header)]


def max_age(
    max_age_ms: Annotated[int, Query(ge=0, le=LONGEST_AGE_MS)] = DEFAULT_MAX_AGE_MS,
    fresh: Annotated[bool, Query()] = False,
) -> int:
    """The age in milliseconds that the caller takes; `fresh=1` is 0."""
    return 0 if fresh else max_age_ms


MaxAge = Annotated[int, Depends(max_age)]


def symbol_filter(
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

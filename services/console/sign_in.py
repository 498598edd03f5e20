"""Signing in and out: the printed link, the password form, the cookie."""

import math
from dataclasses import dataclass, field
from html import escape
from typing import Final, Self
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from console.gate import COOKIE, LOGIN, ROOT, STATIC
from console.sessions import SESSION_LIFETIME_S, OneTimeToken, Sessions, same_secret
from console.settings import ConsoleSettings
from console.throttle import SignInThrottle

HOME: Final = f"{ROOT}/"

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>mt5-swarm console</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{head}
<link rel="icon" href="{static}/icon.svg"><script src="{static}/console.js"></script>
<link rel="stylesheet" href="{static}/console.css"></head>
<body class="sign-in"><main><h1>mt5-swarm <span>console</span></h1>{body}</main></body></html>
"""
_FORM: Final = """<form method="post" action="{login}">
<label for="password">Operator password</label>
<input id="password" name="password" type="password" required autofocus
 autocomplete="current-password"><button type="submit">Sign in</button></form>"""
_BY_LINK: Final = (
    "<p>Sign in by the link that was printed when the stack started. It works once; start the "
    "stack again for a new one.</p>"
)
_OFF: Final = "<p>The console is off: no operator password is set.</p>"


@dataclass(frozen=True, slots=True)
class SignIn:
    """What signing in needs.

    Args:
        sessions: Makes the cookies.
        token: Of the printed link.
        password: Of the form; no form when None.
        by_link: Whether a link was printed at all.
        throttle: Slows guesses down.
    """

    sessions: Sessions
    token: OneTimeToken
    password: str | None
    by_link: bool
    throttle: SignInThrottle = field(default_factory=SignInThrottle)

    @classmethod
    def from_settings(cls, settings: ConsoleSettings, sessions: Sessions) -> Self:
        """The ways in that the settings open."""
        token, password = settings.one_time_token, settings.operator_password
        return cls(
            sessions,
            OneTimeToken(token.get_secret_value() if token else None),
            password.get_secret_value() if password else None,
            by_link=token is not None,
        )

    def page(self, problem: str = "", status: int = 200) -> Response:
        """The sign-in page, with a sentence about what went wrong."""
        alert = f'<p role="alert" data-testid="problem">{escape(problem)}</p>' if problem else ""
        ways = [_FORM.format(login=LOGIN)] if self.password is not None else []
        if self.by_link:
            ways.append(_BY_LINK)
        return _html(alert + ("".join(ways) or _OFF), status)

    def by_token(self, given: str, *, https: bool) -> Response:
        """Answer the printed link."""
        if not self.token.spend(given):
            return self.page("This link has been used, or is not ours.", 401)
        # A page that goes on by itself, not a redirect: a browser that came from another site
        # (a link in a chat) would withhold a SameSite=Strict cookie through a redirect.
        go_on = f'<meta http-equiv="refresh" content="0;url={HOME}">'
        answer = _html(f'<p>Signed in. <a href="{HOME}">Go on</a></p>', 200, head=go_on)
        return self._admit(answer, https=https)

    def by_password(self, given: str, address: str, *, https: bool) -> Response:
        """Answer the form."""
        if self.password is None:
            return self.page("Signing in with a password is off.", 403)
        wait = self.throttle.wait_s(address)
        if wait > 0:
            refusal = self.page(f"Too many tries. Try again in {_seconds(wait)}.", 429)
            refusal.headers["Retry-After"] = str(math.ceil(wait))
            return refusal
        if not same_secret(given, self.password):
            wait = self.throttle.failed(address)
            return self.page(f"Wrong password. Try again in {_seconds(wait)}.", 401)
        self.throttle.succeeded(address)
        return self._admit(RedirectResponse(HOME, 303), https=https)

    def _admit(self, response: Response, *, https: bool) -> Response:
        response.set_cookie(
            COOKIE,
            self.sessions.issue(),
            max_age=SESSION_LIFETIME_S,
            path=ROOT,
            secure=https,
            httponly=True,
            samesite="strict",
        )
        return response


def sign_in_routes(sign_in: SignIn) -> APIRouter:
    """`/console/login` and `/console/logout`."""
    router = APIRouter(include_in_schema=False)

    @router.get(LOGIN)
    async def login_page(request: Request) -> Response:
        token = request.query_params.get("token")
        if token is None:
            return sign_in.page()
        return sign_in.by_token(token, https=_https(request))

    @router.head(LOGIN)
    async def login_exists() -> Response:
        # A link checker must not use the link up.
        return Response()

    @router.post(LOGIN)
    async def login(request: Request) -> Response:
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        given = fields.get("password", [""])[0]
        address = request.client.host if request.client else ""
        return sign_in.by_password(given, address, https=_https(request))

    @router.post(f"{ROOT}/logout")
    async def logout(request: Request) -> Response:
        sign_in.sessions.end(request.cookies.get(COOKIE, ""))
        response = RedirectResponse(LOGIN, 303)
        response.delete_cookie(COOKIE, path=ROOT)
        return response

    return router


def _html(body: str, status: int, head: str = "") -> Response:
    text = _PAGE.format(head=head, body=body, static=STATIC)
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def _https(request: Request) -> bool:
    return request.url.scheme == "https"


def _seconds(wait: float) -> str:
    whole = math.ceil(wait)
    return f"{whole} second{'' if whole == 1 else 's'}"

"""Failures of the control API: one shape for all."""

from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from terminal_sim.faults.injection import brief
from terminal_sim.supervisor.broker_link import BrokerDown, BrokerRefused

_RETRY_S = 5
_UNAVAILABLE = 503
# Of one request's reasons; nobody reads more.
_MOST_REASONS = 20
# What a validator of ours says is a sentence, which pydantic puts this before.
_OURS = "Value error, "
_CODES = {
    400: "INVALID_PARAMETERS",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "REFUSED",
    413: "TOO_LARGE",
    422: "INVALID_PARAMETERS",
    503: "TERMINAL_UNAVAILABLE",
}


class ControlError(Exception):
    """A request that fails.

    Attributes:
        status: Of the answer.
        details: For programs.
        code: Likewise; by default that of the status.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        details: dict[str, Any] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.details = details
        self.code = code


def failure(
    status: int, sentence: str, details: dict[str, Any] | None = None, code: str | None = None
) -> JSONResponse:
    """Return the answer of a request that failed."""
    retry = _RETRY_S if status == _UNAVAILABLE else None
    body = {
        "success": False,
        "error": _plain(sentence),
        "code": code or _CODES.get(status, "INTERNAL"),
        "details": details or {},
        "retry_after_s": retry,
        "request_id": uuid4().hex,
    }
    return JSONResponse(body, status, {"Retry-After": str(retry)} if retry else None)


def _plain(text: str) -> str:
    """Return a text that can be sent, whatever somebody gave that it repeats."""
    return text.encode("utf-8", "backslashreplace").decode()


def _sentence(first: dict[str, str], kind: str) -> str:
    reason = first["reason"]
    if kind == "value_error":
        return reason
    return f"A parameter is not valid: {first['field']}: {reason}."


def add_errors(app: FastAPI) -> None:
    """Give every failure of an application that shape."""

    @app.exception_handler(ControlError)
    async def known(_request: Request, error: ControlError) -> JSONResponse:
        return failure(error.status, str(error), error.details, error.code)

    @app.exception_handler(BrokerDown)
    async def down(_request: Request, error: BrokerDown) -> JSONResponse:
        said = f"The broker {error}; what was asked of it may have been done."
        return failure(_UNAVAILABLE, said, code="BROKER_UNAVAILABLE")

    @app.exception_handler(BrokerRefused)
    async def unwilling(_request: Request, error: BrokerRefused) -> JSONResponse:
        status = 404 if error.reason == "unknown" else 409
        return failure(status, f"The broker refused: {error}", {"reason": error.reason})

    @app.exception_handler(StarletteHTTPException)
    async def refused(_request: Request, error: StarletteHTTPException) -> JSONResponse:
        return failure(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        places = [brief(_plain(".".join(map(str, each["loc"])))) for each in found]
        reasons = [
            {"field": place, "reason": _plain(str(each["msg"])).removeprefix(_OURS)}
            for place, each in zip(places, found[:_MOST_REASONS], strict=False)
        ]
        details = {"fields": places, "reasons": reasons}
        return failure(422, _sentence(reasons[0], found[0]["type"]), details)

    @app.exception_handler(Exception)
    async def broken(_request: Request, _error: Exception) -> JSONResponse:
        return failure(500, "Something went wrong in the supervisor.")

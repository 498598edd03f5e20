"""The one shape in which a failure leaves the system (contracts §1)."""

import math
from collections.abc import Sequence

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mt5kit.errors import (
    InternalFault,
    InvalidParameters,
    MethodNotAllowed,
    Mt5SwarmError,
    NotFound,
    PayloadTooLarge,
)

log = structlog.get_logger(__name__)

CODE_KEY = "mt5.code"
_WITH_RETRY_AFTER = (429, 503)


class FailureResponse(Response):
    """A failure on the wire; sending it leaves its code in the scope, for the envelope."""

    def __init__(self, body: bytes, status: int, headers: dict[str, str], code: str) -> None:
        super().__init__(body, status, headers, media_type="application/json")
        self._code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        scope[CODE_KEY] = self._code
        await super().__call__(scope, receive, send)


def failure_response(error: Mt5SwarmError, request_id: str) -> Response:
    """An exception as the answer a caller gets; faults of ours tell nothing but the id."""
    hidden = isinstance(error, InternalFault)
    body = {
        "success": False,
        "error": "something went wrong on our side" if hidden else error.message,
        "code": error.code,
        "details": {} if hidden else error.details,
        "retry_after_s": error.retry_after_s,
        "request_id": request_id,
    }
    headers = {}
    if error.status in _WITH_RETRY_AFTER and error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return FailureResponse(orjson.dumps(body), error.status, headers, error.code)


def install_failure_handlers(app: FastAPI) -> None:
    """Give every failure an app can answer with our shape."""
    app.add_exception_handler(Mt5SwarmError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def request_id_of(request: Request) -> str:
    """The id the envelope gave this request."""
    return str(request.scope["mt5.request_id"])


async def _ours(request: Request, error: Exception) -> Response:
    if not isinstance(error, Mt5SwarmError):
        raise error
    _log_fault(error)
    return failure_response(error, request_id_of(request))


async def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return failure_response(_invalid_parameters(error.errors()), request_id_of(request))


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    failure = _of_status(error, request)
    failure.__cause__ = error
    _log_fault(failure)
    response = failure_response(failure, request_id_of(request))
    # Allow, on a 405.
    response.headers.update(error.headers or {})
    return response


def _log_fault(error: Mt5SwarmError) -> None:
    if isinstance(error, InternalFault):
        log.error("internal_fault", code=error.code, error=error.message, exc_info=error)


def _invalid_parameters(problems: Sequence[dict[str, object]]) -> InvalidParameters:
    # `input` and `ctx` would echo what was sent, a password perhaps.
    fields = [
        {"field": ".".join(str(part) for part in _location(problem)), "problem": _sentence(problem)}
        for problem in problems
    ]
    first = fields[0] if fields else {"field": "request", "problem": "malformed"}
    return InvalidParameters(f"{first['field']}: {first['problem']}", details={"fields": fields})


# What pydantic says of these speaks of patterns and dictionaries.
_SENTENCES = {
    "string_pattern_mismatch": "has characters, or a length, that it may not have",
    "json_invalid": "is not JSON",
    "dict_type": "is not a JSON object; send Content-Type: application/json",
    "model_attributes_type": "is not a JSON object; send Content-Type: application/json",
}


def _sentence(problem: dict[str, object]) -> str:
    own = _SENTENCES.get(str(problem["type"]))
    return own or str(problem["msg"]).removeprefix("Value error, ")


def _location(problem: dict[str, object]) -> Sequence[object]:
    location = problem.get("loc")
    return location if isinstance(location, tuple) else ()


def _of_status(error: HTTPException, request: Request) -> Mt5SwarmError:
    known: dict[int, Mt5SwarmError] = {
        404: NotFound(f"no route {request.url.path}"),
        405: MethodNotAllowed(f"{request.method} is not a method of {request.url.path}"),
        413: PayloadTooLarge("the body is too large"),
    }
    if error.status_code in known:
        return known[error.status_code]
    if error.status_code < 500:  # noqa: PLR2004 - the caller's half of the status codes
        return InvalidParameters(str(error.detail))
    return InternalFault(str(error.detail))

"""The id of a request: the caller's if it is honest, else one of ours."""

import re
import uuid

from starlette.types import Scope

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")


def request_id_of(given: bytes | None) -> str:
    """What `X-Request-ID` says if it is 1 to 64 of `[A-Za-z0-9_-]`, else a new id."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return uuid.uuid4().hex


def request_id_of_scope(scope: Scope) -> str:
    """The same of a connection that the envelope has not seen."""
    return request_id_of(dict(scope["headers"]).get(b"x-request-id"))

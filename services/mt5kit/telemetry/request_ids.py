"""The id of a request: the caller's if it is honest, else one of ours."""

import re
import uuid

from starlette.types import Scope

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def request_id_of_scope(scope: Scope) -> str:
    """What `X-Request-ID` says if it is 1 to 64 of `[A-Za-z0-9_-]`, else a new id."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return given
    return uuid.uuid4().hex

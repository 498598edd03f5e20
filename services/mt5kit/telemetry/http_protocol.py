"""uvicorn's HTTP protocol, with our shape for what never becomes a request."""

import sys
import uuid

from httptools import HttpParserInvalidMethodError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mt5kit.errors import InvalidParameters, MethodNotAllowed, Mt5SwarmError
from mt5kit.telemetry.errors_http import failure_response


class ShapedHttpProtocol(HttpToolsProtocol):
    """Answers bytes that are no HTTP, and methods nobody has heard of, as every other failure."""

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refused, and hang up; called while its exception is handled."""
        unheard_of = isinstance(sys.exc_info()[1], HttpParserInvalidMethodError)
        error: Mt5SwarmError = InvalidParameters(msg)
        if unheard_of:
            error = MethodNotAllowed("this is no HTTP request, or its method is unknown")
        request_id = uuid.uuid4().hex
        response = failure_response(error, request_id)
        lines = [f"HTTP/1.1 {response.status_code} Refused", "connection: close"]
        lines += [f"{name.decode()}: {value.decode()}" for name, value in response.raw_headers]
        lines += [f"x-request-id: {request_id}", "", ""]
        self.transport.write("\r\n".join(lines).encode() + bytes(response.body))
        self.transport.close()

"""What nginx lets in, what it refuses, and how."""

import ssl
from uuid import uuid4

import pytest
from tests.swarm.nginx.client import SECRET, Answer, connected, exchange, refused, request, trusting
from tests.swarm.nginx.site import Nginx, StandIn
from tests.swarm.nginx.test_balancing import sent

# The first of them makes the image.
pytestmark = pytest.mark.timeout(600)

HOSTILE_PATHS = [
    "/", "/metrics", "/internal/turns", "/services/api-pool/metrics", "/health/live",
    "/health/ready", "/stub_status", "/.refused/internal", "/api", "/ws", "/apix", "/consolex",
    "/API/x", "/Console/", "/api/../metrics", "/api/..%2fmetrics", "/api/%2e%2e/metrics",
    "/api/.%2E/internal/turns", "//metrics", "//api/x", "/api//internal", "/./metrics",
    "/metrics/../api/x", "/internal/turns/../../api/x", "/metrics/../console/x",
    "/internal/../ws/quotes", "/metrics%3f/../api/x",
    "/internal%2fturns/../api/x", "/api/x/..", "/api/.", "/%61pi/../metrics", "/%6detrics",
    "/api/x%00", "/metrics%00/../api/x", "/api\\..\\metrics", "/api/..\\metrics", "/api/%5c..",
    "/metrics#/../api/x", "/api/#/../../metrics", "/ws/../internal/turns", "/console/../metrics",
    "/console/..%2f..%2finternal/turns", "/api/..;/internal/turns/../../api/..",
    "http://swarm.test/metrics", "http://swarm.test/api/../internal/turns", "*",
]  # fmt: skip


def test_nothing_but_its_three_doors_is_reached(nginx: Nginx, replicas: dict[str, StandIn]) -> None:
    mark = uuid4().hex
    answers = {path: nginx.ask(path if path == "*" else f"{path}?{mark}") for path in HOSTILE_PATHS}
    codes = {404: "NOT_FOUND", 422: "INVALID_PARAMETERS"}
    assert {path: a.status for path, a in answers.items() if a.status not in codes} == {}
    for answer in answers.values():
        refused(answer, answer.status, codes[answer.status])
    assert [line for replica in replicas.values() for line in replica.got(mark)] == []


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/mt5/accounts?x=/../y", "/api/mt5/accounts?x=/../y"),
        ("/api/candles/EUR%20USD/H1.x/...", "/api/candles/EUR%20USD/H1.x/..."),
        ("http://swarm.test/api/x?q=//", "/api/x?q=//"),
        ("/console", "/console"),
        ("/console/static/a.b.js?v=1", "/console/static/a.b.js?v=1"),
        ("/ws/quotes", "/ws/quotes"),
    ],
)
def test_honest_paths_arrive_as_they_were_sent(nginx: Nginx, path: str, target: str) -> None:
    assert nginx.asked(path)["target"] == target


def test_health_is_its_own_answer(nginx: Nginx) -> None:
    for answer in (nginx.ask("/health"), exchange(nginx.port(8080), request("/health"), tls=False)):
        assert (answer.status, answer.body) == (200, b'{"status":"ok"}')


def test_port_80_leads_to_https(nginx: Nginx) -> None:
    answer = exchange(nginx.port(8080), request("/api/x?a=b"), tls=False)
    assert answer.status == 301
    assert answer.header("location") == "https://swarm.test/api/x?a=b"
    assert answer.header("strict-transport-security") is None


GARBAGE = b"\x16\x03\x01 not http\r\n\r\n"
CHUNKED = {"Transfer-Encoding": "chunked"}


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (GARBAGE, 422, "INVALID_PARAMETERS"),
        (b"GET /api/x HTTP/9.1\r\nHost: x\r\n\r\n", 422, "INVALID_PARAMETERS"),
        (b"GET /api/x HTTP/1.1\r\n\r\n", 422, "INVALID_PARAMETERS"),
        (request("/api/x", headers={"Host": "a b"}), 422, "INVALID_PARAMETERS"),
        (request("/api/x" + "x" * 9000), 422, "INVALID_PARAMETERS"),
        (request("/api/x", headers={"Cookie": "x" * 40_000}), 422, "INVALID_PARAMETERS"),
        (request("/api/x", headers={"Transfer-Encoding": "odd"}), 422, "INVALID_PARAMETERS"),
        (request("/api/x", headers={**CHUNKED, "Content-Length": "4"}), 422, "INVALID_PARAMETERS"),
        (request("/api/x", "POST", body=b"x" * 65_537), 413, "PAYLOAD_TOO_LARGE"),
        (
            request("/api/x", "POST", CHUNKED) + b"10001\r\n" + b"x" * 0x10001 + b"\r\n0\r\n\r\n",
            413,
            "PAYLOAD_TOO_LARGE",
        ),
        (request("/api/x", "TRACE"), 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_what_nginx_itself_refuses(nginx: Nginx, sent: bytes, status: int, code: str) -> None:
    refused(exchange(nginx.https, sent), status, code)


def test_http_on_the_port_of_https(nginx: Nginx) -> None:
    refused(exchange(nginx.https, request("/api/x"), tls=False), 422, "INVALID_PARAMETERS")


def test_a_body_of_the_greatest_size_arrives(nginx: Nginx) -> None:
    body = b"x" * 65_536
    assert nginx.asked("/api/x", method="POST", body=body)["body"] == body.decode()


SAID_ALWAYS = {
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "server": "nginx",
}


@pytest.mark.parametrize(
    ("target", "status"),
    [("/api/x", 200), ("/api/x?status=503", 503), ("/nowhere", 404), ("/api/x?do=hang_up", 503)],
)
def test_headers_that_keep_browsers_careful_are_in_every_answer(
    nginx: Nginx, target: str, status: int
) -> None:
    answer = nginx.ask(target, method="POST")
    assert answer.status == status
    assert {name: answer.header(name) for name in SAID_ALWAYS} == SAID_ALWAYS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-Security-Policy", "default-src 'self'"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "SAMEORIGIN"),
    ],
)
def test_what_a_service_says_of_itself_is_left_and_not_said_twice(
    nginx: Nginx, name: str, value: str
) -> None:
    answer = nginx.ask(f"/console/x?header={name}:{value.replace(' ', '+')}")
    assert answer.header(name.lower()) == value


@pytest.mark.parametrize("given", ["an_id-0", "x" * 64])
def test_an_honest_request_id_is_kept(nginx: Nginx, given: str) -> None:
    answer = nginx.ask("/api/x", headers={"X-Request-ID": given})
    assert answer.header("x-request-id") == given
    assert ["x-request-id", given] in answer.json()["headers"]


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", 'a"b', "a,b", "${x}"])
def test_any_other_is_replaced_by_one_of_ours(nginx: Nginx, given: str) -> None:
    for target in ("/api/x", "/nowhere"):
        answer = nginx.ask(target, headers={"X-Request-ID": given})
        made = answer.header("x-request-id")
        assert made is not None
        assert len(made) == 32
        if answer.status == 200:
            sent = [value for name, value in answer.json()["headers"] if name == "x-request-id"]
            assert sent == [made]


SPOKEN_FOR = [
    "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port",
    "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Real-IP", "Forwarded", "X-Original-URL",
    "X-Rewrite-URL", "X-Internal-Key", "x_forwarded_for", "Upgrade",
]  # fmt: skip


def test_services_learn_of_a_client_from_nginx_alone(nginx: Nginx) -> None:
    lies = dict.fromkeys(SPOKEN_FOR, "203.0.113.9")
    for method in ("GET", "DELETE"):
        headers = nginx.asked("/api/x", method=method, headers=lies)["headers"]
        known = {"host", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-api-key"}
        assert {name for name, _ in headers} == known
        told = dict(headers)
        assert told["x-forwarded-for"] != "203.0.113.9"
        assert (told["x-forwarded-proto"], told["host"]) == ("https", "swarm.test")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("name", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(nginx: Nginx, name: str) -> None:
    version = ssl.TLSVersion[name]
    context = trusting(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=version)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"),
        connected(nginx.https, context),
    ):
        pass


@pytest.mark.parametrize("name", ["TLSv1_2", "TLSv1_3"])
def test_tls_is_what_it_is_today(nginx: Nginx, name: str) -> None:
    version = ssl.TLSVersion[name]
    context = trusting(minimum_version=version, maximum_version=version)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connected(nginx.https, context) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        assert connection.version() == name.replace("_", ".")
        assert connection.selected_alpn_protocol() == "h2"


def test_ciphers_without_forward_secrecy_are_refused(nginx: Nginx) -> None:
    context = trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"), connected(nginx.https, context):
        pass


def test_requests_by_http_2(nginx: Nginx, replicas: dict[str, StandIn]) -> None:
    mark = uuid4().hex
    assert over_http_2(nginx, f"/api/x?{mark}").json()["target"] == f"/api/x?{mark}"
    told = over_http_2(nginx, f"/api/../metrics?{mark}").json()
    assert told["code"] == "NOT_FOUND"
    assert sent(mark, *replicas.values()) == 1


def over_http_2(nginx: Nginx, target: str) -> Answer:
    """The body of an answer; of its compressed headers nothing is read."""
    # GET, https, and literals for path, authority and the key, none of them to be remembered.
    path, host = target.encode(), b"swarm.test"
    block = b"\x82\x87\x04" + bytes([len(path)]) + path + b"\x01" + bytes([len(host)]) + host
    block += b"\x00\x09x-api-key" + bytes([len(SECRET)]) + SECRET.encode()
    context = trusting()
    context.set_alpn_protocols(["h2"])
    with connected(nginx.https, context) as connection:
        # The preface, our settings (none), and the one request: END_STREAM and END_HEADERS.
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        connection.sendall(len(block).to_bytes(3, "big") + b"\x01\x05\0\0\0\x01" + block)
        body, stream = b"", connection.makefile("rb")
        while True:
            head = stream.read(9)
            payload = stream.read(int.from_bytes(head[:3], "big"))
            if head[3] == 0:
                body += payload
                if head[4] & 1:
                    return Answer(0, [], body)


def test_large_json_of_the_api_is_compressed(nginx: Nginx) -> None:
    def encoding(target: str, **headers: str) -> str | None:
        answer = nginx.ask(target, headers={"Accept-Encoding": "gzip", **headers})
        assert answer.status == 200
        return answer.header("content-encoding")

    assert encoding("/api/x?size=20000") == "gzip"
    # What is small may hold a ticket, and pages have a cookie that any page makes a browser send.
    assert encoding("/api/x?size=4000") is None
    assert encoding("/console/x?size=20000") is None

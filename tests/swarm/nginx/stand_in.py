"""What stands behind nginx in its tests: HTTP and WebSocket on port 8000, without packages.

It runs in a container of its own, and prints a line of JSON for each request it got. It answers
with that line too, and does as the query tells:

- `do=hang_up`: it hangs up instead, unless it is the replica that `but` names
- `wait=S`: it answers after so many seconds
- `status=N`: it answers with this status
- `size=N`: the body is so many bytes of JSON
- `header=Name:value`: a header of the answer

A WebSocket gets the same line as its first message, and after that what it sends.
"""
# It speaks by printing, and listens for its network.
# ruff: noqa: T201, S104

import asyncio
import base64
import hashlib
import json
import os
import signal
import struct
from typing import Any
from urllib.parse import parse_qsl, urlsplit

NAME = os.environ.get("NAME", os.uname().nodename)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Request:
    """One request, as it came."""

    def __init__(self, head: bytes, body: bytes, peer: str) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = lines[0].split(" ", 2)
        self.headers = [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines[1:])]
        self.body = body
        self.peer = peer
        self.told = dict(parse_qsl(urlsplit(self.target).query))

    def header(self, name: str) -> str:
        return next((v for n, v in self.headers if n.lower() == name), "")

    def line(self) -> dict[str, Any]:
        return {
            "replica": NAME,
            "method": self.method,
            "target": self.target,
            "headers": [[n.lower(), v] for n, v in self.headers],
            "body": self.body.decode("latin-1"),
            "peer": self.peer,
        }


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("peername")[0]
    try:
        while request := await read(reader, peer):
            print(json.dumps(request.line()), flush=True)
            if request.header("upgrade").lower() == "websocket":
                await stream(request, reader, writer)
                break
            await answer(request, writer)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # nginx, or the test, hung up
    finally:
        writer.close()


async def read(reader: asyncio.StreamReader, peer: str) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    request = Request(head[:-4], b"", peer)
    request.body = await reader.readexactly(int(request.header("content-length") or 0))
    return request


async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
    told = request.told
    if told.get("do") == "hang_up" and told.get("but") != NAME:
        raise ConnectionError("as told")
    await asyncio.sleep(float(told.get("wait", 0)))
    body = json.dumps(request.line()).encode()
    if "size" in told:
        body = b'"' + b"x" * (int(told["size"]) - 2) + b'"'
    head = [f"HTTP/1.1 {told.get('status', '200')} Said", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body)}", f"X-Request-ID: {request.header('x-request-id')}"]
    if "header" in told:
        head.append(told["header"])
    writer.write("\r\n".join([*head, "", ""]).encode() + body * (request.method != "HEAD"))
    await writer.drain()


async def stream(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if request.told.get("do") == "hang_up":
        raise ConnectionError("as told")
    key = request.header("sec-websocket-key").encode()
    accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest()).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    writer.write(frame(1, json.dumps(request.line()).encode()))
    while True:
        kind, payload = await message(reader)
        writer.write(frame(kind, payload))
        await writer.drain()
        if kind == 8:
            break


def frame(kind: int, payload: bytes) -> bytes:
    if len(payload) < 126:
        return bytes([0x80 | kind, len(payload)]) + payload
    return bytes([0x80 | kind, 126]) + struct.pack("!H", len(payload)) + payload


async def message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, second = await reader.readexactly(2)
    size = second & 127
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(size)
    return first & 15, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


async def main() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    if "DEAF" not in os.environ:
        await asyncio.start_server(serve, "0.0.0.0", 8000, limit=1 << 20)
    print(json.dumps({"listening": NAME}), flush=True)
    await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main())

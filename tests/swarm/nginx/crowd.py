"""Many clients at one address: it runs in a container, so nginx sees an address of its own.

`crowd.py HOST N TARGET [HEADER...]` sends N requests at once, keeps what is upgraded open until all
are answered, and prints `{"address": of one, "statuses": {status: count}, "bodies": [...]}`.
"""
# It speaks by printing, and listens for its network.
# ruff: noqa: T201

import asyncio
import json
import socket
import ssl
import sys
from collections import Counter

# Either end of the crowd may be slow; nginx delays handshakes by five seconds at most.
PATIENCE_S = 60


async def ask(host: str, request: bytes) -> tuple[int, bytes, asyncio.StreamWriter]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, 8443, ssl=context)
    writer.write(request)
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(status.split(" ", 2)[1]), body, writer


async def main(host: str, count: int, target: str, headers: list[str]) -> None:
    lines = [f"GET {target} HTTP/1.1", "Host: crowd", *headers, "", ""]
    request = "\r\n".join(lines).encode()
    async with asyncio.timeout(PATIENCE_S):
        answers = await asyncio.gather(*(ask(host, request) for _ in range(count)))
    told = {
        "address": socket.gethostbyname(socket.gethostname()),
        "statuses": Counter(status for status, _, _ in answers),
        "bodies": [json.loads(body) for _, body, _ in answers if body],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]))

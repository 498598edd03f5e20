"""A WebSocket client on a bare socket, which reads only when it is told to."""

import base64
import json
import socket
import struct
from typing import Any

MASK = bytes(4)


class RawClient:
    """A client whose reading is done by hand."""

    def __init__(self, address: tuple[str, int], query: str = "", receive_buffer: int = 0) -> None:
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(20)
        self._socket.connect(address)
        key = base64.b64encode(bytes(16)).decode()
        self._socket.sendall(
            f"GET /?{query} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        assert b"101" in self._file.readline()
        while self._file.readline() != b"\r\n":
            pass

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame; raises EOFError at the end."""
        head = self._read(2)
        size = head[1]
        if size >= 126:
            wide = size == 127
            size = struct.unpack("!Q" if wide else "!H", self._read(8 if wide else 2))[0]
        return head[0] & 0xF, self._read(size)

    def message(self) -> dict[str, Any]:
        opcode = 9
        while opcode in {9, 10}:
            opcode, payload = self.frame()
        assert opcode == 1, payload
        return json.loads(payload)  # type: ignore[no-any-return]

    def messages_until(self, seq: int) -> list[dict[str, Any]]:
        taken = [self.message()]
        while taken[-1]["seq"] < seq:
            taken.append(self.message())
        return taken

    def say(self, opcode: int, payload: bytes, times: int = 1) -> None:
        assert len(payload) < 126
        frame = bytes((0x80 | opcode, 0x80 | len(payload))) + MASK + payload
        self._socket.sendall(frame * times)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError
        return data

"""What owners have said and readers were shown, checked as it happens."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from mt5kit.errors import StaleToken
from mt5kit.state.redis import Frame


class World:
    """What every number has meant so far, and what every reader has been shown."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.meant: dict[tuple[int, int], bytes] = {}
        self.happened: Counter[str] = Counter()
        self.late: list[Callable[[], Awaitable[object]]] = []

    def says(self, epoch: int, seq: int, text: bytes) -> None:
        assert self.meant.setdefault((epoch, seq), text) == text

    async def attempt(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The call's answer, or None: it was lost, it never arrived, or it arrives later."""
        fate = self.rng.random()
        if fate < 0.7:
            return await call()
        if fate < 0.85:
            self.happened["answer lost"] += 1
            await call()
        elif fate < 0.93:
            self.late.append(call)
        return None

    async def arrive(self) -> None:
        """Something that was given up reaches Redis."""
        if self.late:
            call = self.late.pop(self.rng.randrange(len(self.late)))
            try:
                await call()
            except StaleToken:
                self.happened["refused late"] += 1


class Reader:
    """Sockets of one replica: they are shown frames one by one, or everything at a number."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epoch = self.seq = 0
        self._shown: dict[int, int] = {}

    def frame(self, frame: Frame) -> None:
        assert frame.seq == self.seq + 1
        assert frame.seq > self._shown.get(self.epoch, 0)
        assert frame.head == b"h%d" % frame.seq
        self.world.says(self.epoch, frame.seq, frame.text)
        self.seq = self._shown[self.epoch] = frame.seq

    def everything(self, epoch: int, seq: int, told: bytes) -> None:
        assert seq >= self._shown.get(epoch, 0)
        self.world.says(epoch, seq, told)
        self.epoch, self.seq = epoch, seq
        self._shown[epoch] = seq

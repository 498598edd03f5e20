"""A Redis to be restarted, killed, frozen and wiped."""

import contextlib
import os
import signal
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import redis

from local_stack.embedded import EmbeddedRedis


class RedisServer(EmbeddedRedis):
    """Keeps what it is told in a file, as the real one does.

    Args:
        data_dir: For that file.
    """

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, durable=True)

    @cached_property
    def client(self) -> "redis.Redis":
        """A client that makes its connection anew when that has been lost."""
        return redis.Redis.from_url(self.admin_url)

    def stop(self) -> None:
        """End it; what it was told last is kept."""
        self.client.close()
        super().stop()

    def restart(self) -> None:
        """End it and start it again; its data is kept."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill -9; `start` brings it back with what its file has."""
        os.kill(self._running_pid(), signal.SIGKILL)
        self.stop()

    def wipe(self) -> None:
        """Forget everything: leases, placements, caches."""
        self.client.flushall()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing while the block lasts."""
        pid = self._running_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _running_pid(self) -> int:
        if self.pid is None:
            raise RuntimeError("Redis does not run")
        return self.pid

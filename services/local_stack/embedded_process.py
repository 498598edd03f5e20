"""The life of one embedded server process: lock, start, readiness, stop."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_START_PATIENCE_S = 60.0
"""Crash recovery of a well-used database takes seconds; a minute means it will not come."""

_STOP_PATIENCE_S = 20.0
"""A fast shutdown writes one checkpoint; past this the server is killed and recovers later."""

_POLL_S = 0.02
"""Fine enough not to be felt in a start of about 0.1 s."""

_SOCKET_DIR_LIMIT = 80
"""A socket's path may have 103 bytes on every Unix; the file's own name takes up to 23."""

_GUARD = 'read -r _; kill -"$1" "$2" 2>/dev/null'
"""Reads a pipe whose other end only we hold: when we die, however that was, it ends the server."""

_LOCK_PATIENCE_S = 0.5
"""A process that another thread has forked just now holds our lock, too, until it has its own
program: a server that is stopped and started again must not take that for another run."""

_LOCK_STEP_S = 0.01


class EmbeddedServerError(RuntimeError):
    """An embedded server could not be started; the message says what to do about it."""


class EmbeddedServer(ABC):
    """One server process and its directory. Starting and stopping are idempotent, and block.

    Args:
        data_dir: Made if it is missing. One run at a time may use it.
    """

    title: ClassVar[str]
    end_signal: ClassVar[signal.Signals]

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.log_file = self.data_dir / "server.log"
        self.socket_dir = _socket_dir(self.data_dir)
        self._pid_file = self.data_dir / "server.pid"
        self._process: psutil.Popen | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def running(self) -> bool:
        """Whether the server process that we started is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedServerError: it is in use by another run, or did not come up. Nothing that was
                started stays behind.
        """
        if self.running:
            return
        self.stop()
        try:
            self._lock = self._take_lock()
            self._end_leftover()
            self._prepare()
            self._spawn()
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and everything that came with it; the data stays."""
        if self._process is not None:
            _end(self._process, self.end_signal)
            # One that had been killed was gone already, and nobody has asked how it ended.
            self._process.poll()
            self._process = None
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self._lock is not None:
            self._pid_file.unlink(missing_ok=True)
            shutil.rmtree(self.socket_dir, ignore_errors=True)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        self.stop()

    @abstractmethod
    def _command(self) -> list[str]:
        """The server's command line; it stays in the foreground and logs to standard error."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make what must exist before the process starts, its socket directory included."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the server answers by now."""

    def _configuration(self) -> str:
        """What the server reads on its standard input, where secrets stay out of `ps`."""
        return ""

    def _take_lock(self) -> IO[str]:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = (self.data_dir / "lock").open("w")
        patient_until = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < patient_until:
                    time.sleep(_LOCK_STEP_S)
                    continue
                lock.close()
                raise EmbeddedServerError(
                    f"{self.title} in {self.data_dir} is in use by another run: stop that one first"
                ) from None
            return lock

    def _end_leftover(self) -> None:
        """End a server whose run was killed: we hold the lock, so nobody needs it."""
        with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            pid, born = self._pid_file.read_text().split()
            process = psutil.Process(int(pid))
            # The birth time tells the server from a later process with a recycled number.
            if process.create_time() == float(born):
                _end(process, self.end_signal)

    def _make_socket_dir(self, owner: int) -> None:
        shutil.rmtree(self.socket_dir, ignore_errors=True)
        try:
            self.socket_dir.mkdir(mode=0o700)
        except FileExistsError:
            raise EmbeddedServerError(
                f"{self.socket_dir} is somebody else's: remove it, or set TMPDIR to another place"
            ) from None
        if os.geteuid() != owner:
            os.chown(self.socket_dir, owner, -1)

    def _spawn(self) -> None:
        # Whatever PG* stands in the caller's environment is meant for other servers.
        env = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with self.log_file.open("wb") as log:
            self._process = process = psutil.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        self._pid_file.write_text(f"{process.pid} {process.create_time()}")
        self._guard = subprocess.Popen(  # noqa: S603 - the arguments are a constant and a number
            ["/bin/sh", "-c", _GUARD, "guard", self.end_signal.name[3:], str(process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # A server that died at once is told of by its log, not by our broken pipe.
        with contextlib.suppress(BrokenPipeError), process.stdin as configuration:
            configuration.write(self._configuration().encode())

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_PATIENCE_S
        while not self._is_ready():
            if not self.running:
                raise self._failure("ended while it was starting")
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {_START_PATIENCE_S:.0f} s")
            time.sleep(_POLL_S)

    def _failure(self, what: str) -> EmbeddedServerError:
        lines = self.log_file.read_text(errors="replace").splitlines()[-5:]
        tail = "\n  ".join(lines) or "(nothing)"
        return EmbeddedServerError(f"{self.title} {what}; {self.log_file} ends:\n  {tail}")


def _end(process: psutil.Process, end_signal: signal.Signals) -> None:
    """Ask a server to end; kill it and its children if it does not. Returns when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children: Sequence[psutil.Process] = process.children(recursive=True)
        process.send_signal(end_signal)
        # One that a test has frozen would never see the signal.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(_STOP_PATIENCE_S)
        except psutil.TimeoutExpired:
            for one in (process, *children):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()
        psutil.wait_procs(children, timeout=_STOP_PATIENCE_S)


def _socket_dir(data_dir: Path) -> Path:
    """A short directory that stays the same for a data directory, so that DSNs do."""
    digest = hashlib.sha256(f"{os.geteuid()} {data_dir}".encode()).hexdigest()[:12]
    base = Path(tempfile.gettempdir())
    if len(str(base)) + len(digest) > _SOCKET_DIR_LIMIT - len("/mt5-swarm-"):
        base = Path("/tmp")  # noqa: S108 - what another user has put there is refused by mkdir
    return base / f"mt5-swarm-{digest}"

"""`python -m local_stack`: see `cli`. A Ctrl-C while the imports run is an end, not a traceback."""

import signal
import sys

signal.signal(signal.SIGINT, lambda *_: sys.exit(130))

from local_stack.cli import app  # noqa: E402 - the imports are what takes the time

if __name__ == "__main__":
    app()

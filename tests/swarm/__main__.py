"""`make test-swarm`: images as containers, two files at a time, then the stack by itself.

Both on an engine of the tests' own: the first part on one that is started here, the second on one
that its tests may restart.
"""

import os
import subprocess
import sys

from tests.swarm.bases import BASES, ensure_base
from tests.swarm.own_engine import CACHE, OwnEngine

CONTAINERS = ("-n", "2", "--dist", "loadfile", "tests/swarm", "--ignore=tests/swarm/test_stack.py")
STACK = ("tests/swarm/test_stack.py",)


def main() -> int:
    """Run both parts; 0 if both passed."""
    own = OwnEngine(CACHE)
    own.start()
    try:
        own.forget()
        for base in BASES:
            ensure_base(own.docker, base)
        containers = _pytest(*CONTAINERS, host=own.docker.host)
        own.forget()
    finally:
        own.stop()
        own.remove()
    # Both are run in any case, or a run would show half of what is wrong.
    return max(containers, _pytest(*STACK))


def _pytest(*arguments: str, host: str | None = None) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    if host is not None:
        environment["DOCKER_HOST"] = host
    command = [sys.executable, "-m", "pytest", "--durations=12", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

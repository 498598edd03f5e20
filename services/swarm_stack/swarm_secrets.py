"""The secrets as the swarm keeps them: immutable, so each new value is a new version."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from swarm_stack.engine import Engine
from swarm_stack.secret_groups import ALL

_VERSIONED: Final = re.compile(r"(?P<name>[a-z0-9_]+)_v(?P<version>[0-9]+)")


class SecretsMissing(Exception):
    """The stack cannot be deployed: the message names what is missing."""


class SwarmSecrets:
    """Secrets of one stack, named `<stack>_<name>_v<version>`.

    Args:
        engine: A manager of the swarm.
        stack: Name of the stack.
    """

    def __init__(self, engine: Engine, stack: str) -> None:
        self._engine = engine
        self._stack = stack

    def versions(self) -> dict[str, int]:
        """The newest version of each secret that is there."""
        newest: dict[str, int] = {}
        for _, name, version in self._versioned():
            newest[name] = max(version, newest.get(name, 0))
        return newest

    def names(self) -> dict[str, str]:
        """The full name of the newest version of every secret.

        Raises:
            SecretsMissing: Some are not there.
        """
        versions = self.versions()
        missing = [name for name in ALL if name not in versions]
        if missing:
            raise SecretsMissing(f"missing secrets: {', '.join(missing)}; run: make secrets")
        return {name: self._full(name, versions[name]) for name in ALL}

    def add(self, values: Mapping[str, bytes]) -> None:
        """Store new versions. Their values go through a pipe, never through an argument."""
        versions = self.versions()
        for name, value in values.items():
            full = self._full(name, versions.get(name, 0) + 1)
            # Not the label of `docker stack`: `stack rm` would take them along, key ring and all.
            labels = ("--label", f"mt5.stack={self._stack}")
            self._engine.run("secret", "create", *labels, full, "-", stdin=value)

    def remove_all(self) -> int:
        """Remove every version of every secret of the stack; how many."""
        ours = [full for full, _, _ in self._versioned()]
        if ours:
            self._engine.run("secret", "rm", *ours)
        return len(ours)

    def _versioned(self) -> Iterator[tuple[str, str, int]]:
        """(full name, name, version); another stack's name may begin as ours does."""
        for row in self._engine.rows("secret", "ls", "--filter", f"name={self._stack}_"):
            full = str(row["Name"])
            prefix, _, rest = full.partition(f"{self._stack}_")
            found = _VERSIONED.fullmatch(rest)
            if not prefix and found and found["name"] in ALL:
                yield full, found["name"], int(found["version"])

    def _full(self, name: str, version: int) -> str:
        return f"{self._stack}_{name}_v{version}"

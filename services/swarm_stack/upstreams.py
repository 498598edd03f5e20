"""The lists of slots in `nginx.conf`, made from the sizes of the stack."""

import re
from typing import Final

from swarm_stack.sizes import Sizes

# An address where ten attempts failed within two seconds is let be as long. One failure must not be
# enough: a request that makes three replicas hang up would take all of them away from the others.
OPTIONS: Final = "resolve max_fails=10 fail_timeout=2s"
_MARKED: Final = re.compile(
    r"^(?P<indent> *)# >>> (?P<name>\S+)\n(?P<slots>.*?)^(?P=indent)# <<< (?P=name)\n",
    re.MULTILINE | re.DOTALL,
)


class MarksMissing(ValueError):
    """The text has not exactly one pair of marks for each list."""


def with_slots(text: str, sizes: Sizes) -> str:
    """The text of an `nginx.conf` with the lists that these sizes give.

    Only what stands between the marks `# >>> <service>` and `# <<< <service>` is replaced. Each
    slot up to the pool's maximum is a server of its own: those without a task do not resolve, and
    nginx leaves them out.

    Raises:
        MarksMissing: A list has no place, more than one, or is not known.
    """
    lists = {"websocket-pool": _slots("ws", sizes.pools.websocket.max)}
    found = [marked["name"] for marked in _MARKED.finditer(text)]
    if sorted(found) != sorted(lists):
        raise MarksMissing(f"marks for {sorted(lists)} are to stand once each, not for {found}")

    def filled(marked: re.Match[str]) -> str:
        indent, name = marked["indent"], marked["name"]
        lines = [f"# >>> {name}", *lists[name], f"# <<< {name}"]
        return "".join(f"{indent}{line}\n" for line in lines)

    return _MARKED.sub(filled, text)


def _slots(host: str, most: int) -> list[str]:
    return [f"server {host}-{slot}:8000 {OPTIONS};" for slot in range(1, most + 1)]

"""Run once by the Python in Wine: it and its packages are those that were meant.

Usage: check_packages.py LOCK
"""

from __future__ import annotations

import re
import struct
import sys
from importlib import import_module
from importlib.metadata import version

PYTHON, BITS = (3, 9, 0), 32
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", re.MULTILINE)


def main(lock: str) -> int:
    """Return 0, or 1 with a line for each thing that is wrong."""
    wrong = []
    bits = 8 * struct.calcsize("P")
    if (sys.version_info[:3], bits) != (PYTHON, BITS):
        wrong.append(f"this is Python {sys.version} with {bits} bits")
    with open(lock, encoding="utf-8") as file:  # noqa: PTH123 - of an older Python
        pinned = dict(_PINNED.findall(file.read()))
    for name, expected in pinned.items():
        found = version(name)
        if found != expected:
            wrong.append(f"{name} is {found}, not {expected}")
    for module in ("MetaTrader5", "rpyc", "numpy"):
        import_module(module)
    print("\n".join(wrong) or f"{len(pinned)} packages are as pinned")  # noqa: T201 - its log
    return 1 if wrong or not pinned else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""On which line of a scenario file something stands.

The decoders say where a fault is as a path into the data; a person wants the line. Texts given to
this module have been parsed without complaint, so it need not judge them, only follow them.
"""

import re
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the top, for example ``("accounts", 0, "login")``."""

_STEPS = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|(?!""").)*"{3,5}'
    r"|'''(?:(?!''').)*'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}\n#]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)


def steps(place: str) -> Path:
    """Return the path a decoder writes as ``$.accounts[0].login``."""
    found = _STEPS.finditer(place)
    return tuple(int(step[2]) if step[2] else step[1] for step in found)


def locate(text: str, suffix: str, path: Path) -> int:
    """Return the line (from 1) of what a path leads to, or of the nearest thing around it.

    Args:
        text: A file that its decoder accepts.
        suffix: ``.toml`` or ``.json``.
        path: Where in the data.
    """
    reader = _Reader(text)
    try:
        if suffix == ".toml":
            reader.document()
        else:
            reader.value(())
    except RecursionError:  # what is nested so deeply has no line worth telling
        return 1
    while path and path not in reader.starts:
        path = path[:-1]
    return text.count("\n", 0, reader.starts.get(path, 0)) + 1


class _Reader:
    """Notes where each element of a TOML or JSON text starts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.starts: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}

    def document(self) -> None:
        """Read TOML: headers of tables, and keys with values."""
        table: Path = ()
        while self._ahead():
            start = self.at
            if self._ahead() == "[":
                table = self._header()
                self.starts.setdefault(table, start)
            else:
                self._pair(table)

    def value(self, path: Path) -> None:
        """Read a value of either language."""
        first = self._ahead()
        self.starts.setdefault(path, self.at)
        if first == "[":
            self.at += 1
            index = 0
            while self._ahead() != "]":
                self.value((*path, index))
                index += 1
                self._comma()
            self.at += 1
        elif first == "{":
            self.at += 1
            while self._ahead() != "}":
                self._pair(path)
                self._comma()
            self.at += 1
        else:
            self._match(_STRING if first in "\"'" else _PLAIN)

    def _ahead(self) -> str:
        """Return the next character that means something, or nothing at the end."""
        self._match(_BLANK)
        return self.text[self.at : self.at + 1]

    def _match(self, pattern: "re.Pattern[str]") -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            self.at = len(self.text)
            return ""
        self.at = found.end()
        return found[0]

    def _comma(self) -> None:
        if self._ahead() == ",":
            self.at += 1

    def _header(self) -> Path:
        """Read ``[table]`` or ``[[array of tables]]`` and return what the next keys belong to."""
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        *parents, last = self._key()
        self._ahead()
        self.at += 2 if many else 1
        path: Path = ()
        for key in parents:
            path = self._newest((*path, key))
        path = (*path, last)
        if many:
            self.starts.setdefault(path, self.at)
            self._lengths[path] = self._lengths.get(path, 0) + 1
        return self._newest(path)

    def _newest(self, path: Path) -> Path:
        """Return the newest table when a path leads to an array of tables."""
        length = self._lengths.get(path)
        return (*path, length - 1) if length else path

    def _pair(self, table: Path) -> None:
        self._ahead()
        start = self.at
        path = table
        for key in self._key():
            path = (*path, key)
            self.starts.setdefault(path, start)
        self._ahead()
        self.at += 1
        self.value(path)

    def _key(self) -> list[str]:
        """Read a key; a dotted one has several parts."""
        parts = []
        while True:
            quoted = self._ahead() in {'"', "'"}
            part = self._match(_STRING if quoted else _BARE_KEY)
            parts.append(_unquoted(part) if quoted else part)
            if self._ahead() != ".":
                return parts
            self.at += 1


def _unquoted(key: str) -> str:
    if key.startswith("'"):
        return key[1:-1]
    return _ESCAPE.sub(_character, key[1:-1])


def _character(escape: "re.Match[str]") -> str:
    code = escape[1] or escape[2]
    return chr(int(code, 16)) if code else escape[3]

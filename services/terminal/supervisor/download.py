"""Fetching a file whole or not at all.

As a program, for building the image: `download.py URL PATH SHA256`.
"""

from __future__ import annotations

import hashlib
import http.client
import sys
import urllib.request
from pathlib import Path
from typing import Callable

# Between two pieces of a file; a server that is slower is not there.
_PATIENCE_S = 60.0
_PIECE = 1 << 16


class DownloadFailed(Exception):
    """A file could not be had; the message says why in a line."""


def download(url: str, path: Path, sha256: str | None, go_on: Callable[[], object] = tuple) -> None:
    """Fetch `url` into `path`.

    Args:
        url: Of the file.
        path: Where it goes; what was there is replaced once the new file is whole.
        sha256: What it must be, in hexadecimal digits; None: whatever comes.
        go_on: Called now and then; what it raises ends the download.

    Raises:
        DownloadFailed: It did not come, or is another file.
    """
    draft = path.with_name(path.name + ".part")
    found = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer, draft.open("wb") as file:  # noqa: S310
            expected = answer.headers.get("Content-Length")
            for piece in iter(lambda: answer.read(_PIECE), b""):
                go_on()
                found.update(piece)
                file.write(piece)
            size = file.tell()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadFailed(f"{url}: {error}") from error
    if expected is not None and size != int(expected):
        raise DownloadFailed(f"{url}: {size} of {expected} bytes came")
    if sha256 is not None and found.hexdigest() != sha256.lower():
        draft.unlink()
        raise DownloadFailed(f"{url} is another file: SHA-256 {found.hexdigest()}, not {sha256}")
    draft.replace(path)


def main(url: str, path: str, sha256: str) -> int:
    """Return 0, or 1 with what went wrong and what to do about it in one line."""
    try:
        download(url, Path(path), sha256)
    except DownloadFailed as failed:
        sys.stderr.write(f"{failed}; give another URL or hash as a build argument\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

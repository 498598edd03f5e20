"""The packages for the Python in Wine: each has its wheel, and together they lack nothing.

Asks the package index, so it is among the long tests.
"""

import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

LOCK = Path(__file__).parents[2] / "services" / "terminal" / "wine" / "requirements.lock"
TARGET = [
    "--platform",
    "win32",
    "--python-version",
    "3.9",
    "--implementation",
    "cp",
    "--abi",
    "cp39",
]
# What their markers are asked about.
IN_WINE = {
    "platform_system": "Windows",
    "platform_python_implementation": "CPython",
    "sys_platform": "win32",
    "os_name": "nt",
    "python_version": "3.9",
    "python_full_version": "3.9.0",
    "extra": "",
}

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def test_the_locked_wheels_are_there_and_complete(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *TARGET,
         "--only-binary", ":all:", "--no-deps", "--require-hashes",
         "--dest", str(tmp_path), "--requirement", str(LOCK)],
        check=True,
    )  # fmt: skip
    versions, wanted = {}, []
    for wheel in tmp_path.iterdir():
        with ZipFile(wheel) as archive:
            name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
            metadata = HeaderParser().parsestr(archive.read(name).decode())
        versions[metadata["Name"].lower()] = metadata["Version"]
        wanted += [Requirement(each) for each in metadata.get_all("Requires-Dist", [])]
    assert len(versions) == 6
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate(IN_WINE):
            assert requirement.specifier.contains(versions[requirement.name.lower()]), requirement

"""What the image promises, as far as its sources show."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
IMAGE = ROOT / "services" / "terminal"
DOCKERFILE = (IMAGE / "Dockerfile").read_text()
SUPERVISOR = sorted((IMAGE / "supervisor").glob("*.py"))
IN_WINE = sorted((IMAGE / "wine").glob("*.py"))
# Of the standard library of this Python, what 3.9 had not.
NEWER = {"tomllib", "annotationlib"}
LOCK = (IMAGE / "wine" / "requirements.lock").read_text()
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("path", [*SUPERVISOR, *IN_WINE], ids=lambda path: path.stem)
def test_everything_is_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("path", SUPERVISOR, ids=lambda path: path.stem)
def test_the_supervisor_imports_nothing_but_itself_and_the_standard_library(path: Path) -> None:
    assert imported(path) - {"terminal"} <= sys.stdlib_module_names - NEWER


@pytest.mark.parametrize("path", IN_WINE, ids=lambda path: path.stem)
def test_what_runs_in_wine_needs_nothing_but_the_locked_packages(path: Path) -> None:
    assert imported(path) - {"rpyc", "MetaTrader5"} <= sys.stdlib_module_names - NEWER


def test_each_package_for_wine_is_one_version_and_one_file() -> None:
    lines = [line for line in LOCK.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    pins = {}
    for line in lines:
        match = re.fullmatch(r"([a-z0-9]+)==([0-9.]+) +--hash=sha256:([0-9a-f]{64})", line)
        assert match, line
        pins[match[1]] = match[2]
    assert pins == {
        "metatrader5": "5.0.36",
        "numpy": "1.21.4",
        "plumbum": "1.7.0",
        "pypiwin32": "223",
        "pywin32": "312",
        "rpyc": "5.2.3",
    }


def test_the_link_speaks_the_same_rpyc() -> None:
    declared = re.search(r'"rpyc==([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    assert declared
    assert f"rpyc=={declared[1]} " in LOCK


def test_installers_are_known_by_their_hashes() -> None:
    hashes = re.findall(r"^ARG (\w+)_SHA256=([0-9a-f]{64})$", DOCKERFILE, re.MULTILINE)
    assert [name for name, _ in hashes] == ["PYTHON_INSTALLER", "MONO_INSTALLER"]
    assert len(re.findall(r"^ARG \w+_URL=https://", DOCKERFILE, re.MULTILINE)) == 2


def test_nothing_is_the_latest_and_no_secret_is_an_argument() -> None:
    assert "latest" not in DOCKERFILE
    assert "ARG BASE=gmag11/metatrader5_vnc:2.1\n" in DOCKERFILE
    assert not re.search(r"^(ARG|ENV).*(PASSWORD|TOKEN|SECRET)=", DOCKERFILE, re.MULTILINE)


def test_the_image_ends_as_a_user_under_an_init_with_a_health_check() -> None:
    last = STAGES[-1]
    assert re.findall(r"^USER (\w+)$", last, re.MULTILINE)[-1] == "mt5"
    assert 'ENTRYPOINT ["/usr/bin/tini", "--", "mt5-supervisor"]' in last
    assert 'CMD ["mt5-supervisor", "health"]' in last
    assert "STOPSIGNAL SIGTERM" in last
    assert "--start-period=30m" in last
    for label in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{label}=" in last


def test_only_what_the_image_needs_of_the_tree_is_copied() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for source in " ".join(copied).split():
        assert source.startswith("services/terminal/")
        assert (ROOT / source).exists(), source


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    source = (IMAGE / "supervisor" / "settings.py").read_text()
    read = set(re.findall(r'given\.\w+\(\s*"([A-Z0-9_]+)"', source))
    assert {"TERMINALS", "MT5_DRAIN_S", "SUPERVISOR_KEY_FILE", "FILE__PASSWORD"} <= read
    readme = (IMAGE / "README.md").read_text()
    assert {name for name in read if f"`{name}`" not in readme} == set()
    assert "| `MT5_DRAIN_S` | 60 |" in readme
    assert "| `MT5_RELEASE_S` | 60 |" in readme

"""The conformance matrix: its target, and what is said at the end of a run.

`--conformance-report FILE` (or MT5_CONTRACT_REPORT) writes the whole matrix as a Markdown table.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

# Before they are imported: their assertions say as much as those of a test.
for _module in ("case", "clients", "matrix", "rows", "trading"):
    pytest.register_assert_rewrite(f"tests.contract.{_module}")

from tests.contract.report import markdown, summary  # noqa: E402 - see above
from tests.contract.targets import Target, UnusableTarget, chosen  # noqa: E402 - see above

# Under this name a report carries row and client from a worker of xdist to the controller.
ROW: Final = "conformance row"
SHOWN: Final = ("passed", "failed", "error", "skipped")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the document."""
    parser.addoption(
        "--conformance-report",
        metavar="FILE",
        default=os.environ.get("MT5_CONTRACT_REPORT"),
        help="write the conformance matrix with its outcomes as Markdown",
    )


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    try:
        with chosen() as target:
            yield target
    except UnusableTarget as reason:
        pytest.exit(str(reason), returncode=pytest.ExitCode.USAGE_ERROR)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what the matrix came to, and write the document."""
    outcomes = gathered(terminalreporter)
    if not outcomes:
        return
    terminalreporter.section("conformance")
    for line in summary(outcomes):
        terminalreporter.line(line)
    document = config.getoption("--conformance-report")
    if document:
        Path(document).write_text(markdown(outcomes), encoding="utf-8")
        terminalreporter.line(f"written: {document}")


def gathered(reporter: pytest.TerminalReporter) -> dict[tuple[str, str], str]:
    """Outcome of every row and client that ran; what failed anywhere has failed."""
    found: dict[tuple[str, str], str] = {}
    for kind in SHOWN:
        for report in reporter.stats.get(kind, []):
            # Errors of collecting are no tests.
            where = dict(getattr(report, "user_properties", ())).get(ROW)
            if where is None:
                continue
            label, _, client = str(where).partition("-")
            if found.get((label, client)) != "failed":
                found[label, client] = outcome_of(report)
    return found


def outcome_of(report: pytest.TestReport) -> str:
    """`passed`, `failed`, or the reason of a skip."""
    if report.outcome != "skipped":
        return report.outcome
    assert isinstance(report.longrepr, tuple)
    return report.longrepr[2].removeprefix("Skipped: ")

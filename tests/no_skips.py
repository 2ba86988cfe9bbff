"""A pytest plugin: a skipped test is a failed run.

A skip says that something was not tested; nobody reads it, and what it hid
breaks later. So with ``-p tests.no_skips``, as ``make test`` and CI run it, a
test or module that was skipped, or that is expected to fail, turns the run red
and is named at its end. A run that executed no test at all is red as well.

One kind may be left out, but never in CI: tests marked ``browser``, on a machine that has
none. They are named all the same.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

_skipped = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_skipped] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    may_be_left_out = item.get_closest_marker("browser") and "CI" not in os.environ
    if hasattr(report, "wasxfail") or (report.skipped and not may_be_left_out):
        item.config.stash[_skipped].append(report.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        collector.config.stash[_skipped].append(report.nodeid)
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if session.config.stash[_skipped] and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for name in config.stash[_skipped]:
        terminalreporter.write_line(
            f"NOT RUN: {name}: skips and xfails are failures here", red=True
        )

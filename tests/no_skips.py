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

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(NoSkips(), "the skips of this run")


class NoSkips:
    """The skips of one run.

    It goes by reports, since those also reach the process for which others run the tests.
    """

    def __init__(self) -> None:
        self._skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        may_be_left_out = "browser" in report.keywords and "CI" not in os.environ
        if hasattr(report, "wasxfail") or (report.skipped and not may_be_left_out):
            self._skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._skipped and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self._skipped:
            terminalreporter.write_line(
                f"NOT RUN: {name}: skips and xfails are failures here", red=True
            )

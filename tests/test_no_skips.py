"""The plugin that turns skips into failures does so, for each way to skip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = "pytester"

REPOSITORY = Path(__file__).resolve().parents[1]

PASSES = "def test_it(): pass\n"
WAYS = {
    "mark": "import pytest\n@pytest.mark.skip(reason='later')\ndef test_it(): pass\n",
    "condition": "import pytest\n@pytest.mark.skipif(True, reason='no')\ndef test_it(): pass\n",
    "call": "import pytest\ndef test_it(): pytest.skip('no server')\n",
    "fixture": (
        "import pytest\n@pytest.fixture\ndef server(): pytest.skip('none')\n"
        "def test_it(server): pass\n"
    ),
    "module": "import pytest\npytest.importorskip('no_such_module')\ndef test_it(): pass\n",
    "expected failure": "import pytest\n@pytest.mark.xfail\ndef test_it(): assert 0\n",
    "unexpected pass": "import pytest\n@pytest.mark.xfail(strict=False)\ndef test_it(): pass\n",
}


@pytest.fixture(autouse=True)
def no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be imported anew for each of these runs."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(test_one=source, test_two=PASSES)
    return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", *options)


@pytest.mark.parametrize("way", WAYS)
def test_a_skip_is_a_failure(pytester: pytest.Pytester, way: str) -> None:
    done = run(pytester, WAYS[way], "-p", "tests.no_skips")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines("NOT RUN: test_one.py*")


@pytest.mark.parametrize(
    ("environment", "ends"),
    [("", pytest.ExitCode.OK), ("true", pytest.ExitCode.TESTS_FAILED)],
)
def test_a_browser_may_be_missing_but_not_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, environment: str, ends: int
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if environment:
        monkeypatch.setenv("CI", environment)
    pytester.makeini("[pytest]\nmarkers = browser")
    marked = "import pytest\n@pytest.mark.browser\n" + WAYS["mark"].partition("\n")[2]
    assert run(pytester, marked, "-p", "tests.no_skips").ret == ends


def test_all_run_is_a_success(pytester: pytest.Pytester) -> None:
    assert run(pytester, PASSES, "-p", "tests.no_skips").ret == pytest.ExitCode.OK


def test_none_run_is_no_success(pytester: pytest.Pytester) -> None:
    done = run(pytester, PASSES, "-p", "tests.no_skips", "-k", "no_such_test")
    assert done.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_without_the_plugin_a_skip_passes(pytester: pytest.Pytester) -> None:
    """So the tests above show the plugin's work, not pytest's."""
    assert run(pytester, WAYS["mark"]).ret == pytest.ExitCode.OK


@pytest.mark.parametrize("name", ["Makefile", ".ci/run"])
def test_no_run_goes_without_the_plugin(name: str) -> None:
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    runs = [line for line in lines if re.search(r"(-m|\$\(RUN\)) pytest\b", line)]
    assert runs
    assert all("-p tests.no_skips" in line for line in runs)


def test_a_skip_in_another_process_is_a_failure(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make test` runs them: side by side."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    for way in ("mark", "module", "expected failure"):
        pytester.makepyfile(test_one=WAYS[way], test_two=PASSES)
        options = ("-q", "-p", "no:cacheprovider", "-p", "xdist", "-n", "2")
        done = pytester.runpytest_subprocess(*options, "-p", "tests.no_skips")
        assert done.ret == pytest.ExitCode.TESTS_FAILED
        done.stdout.fnmatch_lines("NOT RUN: test_one.py*")

"""The rules that keep the tree readable, held by reading it.

What a module may import is its place in `LAYERS` (`tests/layers.py`); the other rules are about
size, names, docstrings, and what is shipped.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.layers import CORE, LAYERS, MAY_LOCK

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("langgraph_valkey", "rag_cache")
FOLDERS = (*PACKAGES, "examples", "benchmarks", "tests")
TOP_LEVEL = {*FOLDERS, "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "pyproject.toml"}
MADE = {"build", "dist", "demo-data"}

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
LINES_MOST = 400
FUNCTION_LINES_MOST = 60
VAGUE = {"utils", "util", "helpers", "helper", "manager", "base", "impl", "common", "misc"}
PLACES = re.compile("|".join(rf"(?<![\w.]){each}" for each in ("/tmp/", "/root/", "/home/")))


def module_path(name: str) -> Path:
    """The file of a module of `langgraph_valkey`, given without that prefix."""
    path = ROOT / "langgraph_valkey" / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def sources(*folders: str, suffix: str = ".py") -> list[Path]:
    """Files below folders of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob(f"*{suffix}"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    """What a file imports: ``a.b`` of ``import a.b``, ``a.b.c`` of ``from a.b import c``."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(names: Iterator[str]) -> Iterator[str]:
    """Those names that are of this package, as the modules of `LAYERS`."""
    for name in names:
        top, _, rest = name.partition(".")
        if top == "langgraph_valkey":
            yield next((r for r in (rest, rest.rpartition(".")[0]) if r in LAYERS), rest)


def test_every_module_has_its_place() -> None:
    package = ROOT / "langgraph_valkey"
    there = set()
    for path in sources("langgraph_valkey"):
        parts = path.relative_to(package).with_suffix("").parts
        there.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert there - {""} == set(LAYERS)
    assert len(LAYERS) == len(set(LAYERS))


@pytest.mark.parametrize("module", LAYERS)
def test_modules_import_only_what_stands_before_them(module: str) -> None:
    allowed = set(LAYERS[: LAYERS.index(module)])
    assert set(own(imported(module_path(module)))) <= allowed


@pytest.mark.parametrize("module", CORE)
def test_the_core_knows_no_event_loop_no_thread_and_no_client(module: str) -> None:
    forbidden = {"asyncio", "anyio", "concurrent", "socket", "valkey", "glide", "glide_sync"}
    forbidden |= {"glide_shared"} | (set() if module in MAY_LOCK else {"threading"})
    tops = {name.partition(".")[0] for name in imported(module_path(module))}
    assert not tops & forbidden


def test_exceptions_for_locks_are_in_use() -> None:
    assert all("threading" in imported(module_path(module)) for module in MAY_LOCK)


def test_only_the_glide_folder_imports_glide() -> None:
    clients = ("glide", "glide_sync", "glide_shared")
    for module in LAYERS:
        tops = {name.partition(".")[0] for name in imported(module_path(module))}
        if tops & set(clients):
            assert module.startswith("glide."), module


def test_rag_cache_imports_nothing_of_the_saver() -> None:
    allowed = {
        "errors",
        "limits",
        "fork",
        "quiet",
        "closing",
        "keys",
        "keeper",
        "settings",
        "retry",
    }
    allowed |= {"link", "scripts", "glide.link", "breaker"}
    allowed |= {"vectors.matrix", "vectors.index", "vectors.server_index"}
    allowed |= {"primary.contract", "primary.versions", "primary.opening"}
    for path in sources("rag_cache"):
        assert set(own(imported(path))) <= allowed, path


def test_importing_the_package_is_cheap() -> None:
    """Public names are imported when they are used: errors don't pay for GLIDE."""
    program = (
        "import sys, langgraph_valkey; langgraph_valkey.Unreachable;"
        "sys.exit([m for m in ('glide', 'glide_sync', 'langgraph', 'pydantic') if m in sys.modules]"
        " or None)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


# --- size and names ----------------------------------------------------------------


def own_lines(function: ast.AST) -> int:
    """Lines of a function without those of functions inside it, which count for themselves."""
    assert isinstance(function, FUNCTIONS)
    lines = (function.end_lineno or 0) - function.lineno + 1
    inner = [node for node in ast.walk(function) if isinstance(node, FUNCTIONS)][1:]
    covered = {n for node in inner for n in range(node.lineno, (node.end_lineno or 0) + 1)}
    return lines - len(covered)


def test_files_are_small() -> None:
    files = sources(*FOLDERS) + sources(*PACKAGES, suffix=".lua")
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
    }
    assert {name: lines for name, lines in lengths.items() if lines > LINES_MOST} == {}


def test_functions_are_small() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno}": own_lines(node)
        for path in sources(*FOLDERS)
        for node in ast.walk(tree(path))
        if isinstance(node, FUNCTIONS) and own_lines(node) > FUNCTION_LINES_MOST
    }
    assert long == {}


def test_names_say_what_is_inside() -> None:
    named = {path.stem for path in sources(*FOLDERS)} | {p.parent.name for p in sources(*FOLDERS)}
    assert named & VAGUE == set()


def test_folders_are_never_deep() -> None:
    for package in PACKAGES:
        for path in sources(package):
            assert len(path.relative_to(ROOT / package).parts) <= 2, path


def test_the_top_level_is_what_the_readme_describes() -> None:
    there = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "__"))}
    assert there - MADE - {name for name in there if name.endswith(".egg-info")} == TOP_LEVEL


def test_nothing_names_a_place_on_one_machine() -> None:
    texts = [
        path
        for suffix in (".py", ".lua", ".md", ".json")
        for path in sources(*FOLDERS, suffix=suffix)
    ]
    texts += [ROOT / name for name in TOP_LEVEL - set(FOLDERS)] + [ROOT / ".ci" / "run"]
    me = Path(__file__)
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts
        if path != me
        for match in PLACES.finditer(path.read_text(encoding="utf-8"))
    }
    assert found == set()


# --- the public face ---------------------------------------------------------------


def undocumented(path: Path) -> Iterator[str]:
    def look(node: ast.Module | ast.ClassDef, where: str) -> Iterator[str]:
        if not ast.get_docstring(node):
            yield where
        for child in node.body:
            if getattr(child, "name", "_").startswith("_"):
                continue
            if isinstance(child, ast.ClassDef):
                yield from look(child, f"{where} {child.name}")
            elif isinstance(child, FUNCTIONS):
                setter = any(isinstance(d, ast.Attribute) for d in child.decorator_list)
                if not (setter or ast.get_docstring(child)):
                    yield f"{where} {child.name}"

    return look(tree(path), str(path.relative_to(ROOT)))


def test_what_is_public_is_documented() -> None:
    assert [found for path in sources(*PACKAGES) for found in undocumented(path)] == []


@pytest.mark.parametrize(
    "name", ["langgraph_valkey", "langgraph_valkey.local", "langgraph_valkey.testing"]
)
def test_public_names_are_sorted_and_there(name: str) -> None:
    module = import_module(name)
    assert module.__all__ == sorted(module.__all__)
    assert all(getattr(module, public) is not None for public in module.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        import_module("langgraph_valkey").no_such_name  # noqa: B018


# --- what is shipped ---------------------------------------------------------------


@cache
def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def requirements(extra: str | None = None) -> dict[str, Requirement]:
    listed = project()["dependencies"]
    if extra is not None:
        listed = project()["optional-dependencies"][extra]  # type: ignore[index]
    found = [Requirement(each) for each in listed]  # type: ignore[attr-defined]
    return {each.name: each for each in found if each.name != "langgraph-valkey"}


EXTRAS = [
    *("local", "testing", "cli", "aws", "otel", "sql", "postgres"),
    *("rag", "agents", "plot", "wordllama", "minilm"),
]
"""Those that the packages themselves import."""


def third_party() -> set[str]:
    names = {name.partition(".")[0] for path in sources(*PACKAGES) for name in imported(path)}
    return names - set(sys.stdlib_module_names) - set(PACKAGES)


def test_dependencies_are_those_that_are_imported() -> None:
    providers = packages_distributions()
    optional = set[str]()
    for extra in EXTRAS:
        optional |= set(requirements(extra))
    declared, used = set(requirements()), set[str]()
    for name in third_party():
        provided_by = set(map(canonicalize_name, providers[name])) & (declared | optional)
        assert provided_by, f"{name} is imported, but nothing that provides it is declared"
        used |= provided_by
    assert declared - used == set()


def test_ci_tries_the_lowest_versions_that_are_claimed() -> None:
    lines = (ROOT / ".ci" / "lowest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    ours = requirements()
    for extra in ("testing", "cli", "encryption", "aws", "otel", "sql", "postgres", "agents"):
        ours |= requirements(extra)
    ours["langgraph"] = requirements("demo")["langgraph"]
    lowest = {
        name: spec.version
        for name, each in ours.items()
        for spec in each.specifier
        if spec.operator == ">="
    }
    assert {name: version_of(v) for name, v in pins.items()} == {
        name: version_of(v) for name, v in lowest.items()
    }


def version_of(text: str) -> tuple[int, ...]:
    """A version without trailing zeros, so that ``2.9`` equals ``2.9.0``."""
    return tuple(int(part) for part in re.sub(r"(\.0)+$", "", text).split("."))


def test_the_wheel_holds_all_of_both_packages_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
        notes = {Path(name).name for name in opened.namelist() if ".dist-info/" in name}
    expected = {
        str(path.relative_to(ROOT))
        for suffix in (".py", ".lua", "py.typed")
        for path in sources(*PACKAGES, suffix=suffix)
    }
    assert packed == expected
    assert {"langgraph_valkey/py.typed", "langgraph_valkey/operations/put.lua"} <= packed
    assert {"METADATA", "LICENSE"} <= notes

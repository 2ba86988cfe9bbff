"""The README is run: each Python block as a program, and what it says is compared.

A line that ends in ``# -> text`` must print that text. Tables of settings and
errors are those of the code: `settings_table` and `errors_table` write them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from langgraph_valkey import Settings, TierSettings, errors
from langgraph_valkey.cli.program import app
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.settings import ConnectionSettings
from rag_cache.settings import TTL_S, CacheSettings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

GLIDE_SAYS = re.compile(r"^Error executing command: Connection in recovery.*\n", re.M)
"""Its blocking client prints this when a server goes away, whatever its log level."""


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line of its fence."""

    language: str
    text: str
    line: int


def blocks(*languages: str) -> list[Block]:
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S):
        line = README.count("\n", 0, match.start()) + 1
        if match[1] in languages:
            found.append(Block(match[1], match[2], line))
    return found


def line_of(block: Block) -> str:
    return f"line {block.line}"


def run(program: str, folder: Path, url: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env={**os.environ, "LANGGRAPH_VALKEY_URL": url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert GLIDE_SAYS.sub("", done.stderr) == ""
    return done.stdout


@pytest.mark.parametrize("block", blocks("python"), ids=line_of)
def test_python_runs_and_prints_what_it_says(
    block: Block, tmp_path: Path, valkey: LocalValkey
) -> None:
    said = re.findall(r"# -> (.*)$", block.text, re.M)
    url = valkey.url
    if "rag_cache" in block.text:
        url += "?lookup_deadline_ms=10000"  # This machine may be busy with other tests.
    assert run(block.text, tmp_path, url).splitlines() == said


def test_the_quickstart_goes_on_when_it_is_run_again(tmp_path: Path, valkey: LocalValkey) -> None:
    program = next(b.text for b in blocks("python") if 'LocalValkey("./data")' in b.text)
    outputs = [run(program, tmp_path, valkey.url) for _ in range(2)]
    first, second = (ast.literal_eval(output)["words"] for output in outputs)
    assert (first, second) == (["world", "hello"], ["world", "hello"] * 2)


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    kinds = set(re.findall(r"^```(\w+)$", README, re.M))
    assert kinds == {"python", "sh", "json", "diff"}
    assert README.count("```") % 2 == 0


def test_the_swap_names_what_exists() -> None:
    [block] = blocks("diff")
    removed, added = block.text.splitlines()
    assert removed == "-checkpointer = InMemorySaver()"
    program = f"from langgraph_valkey import ValkeySaver\n{added[1:]}"
    exec(compile(program, "README", "exec"), {})


@pytest.mark.parametrize("block", blocks("sh"), ids=line_of)
def test_shell_is_valid_and_its_targets_exist(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=10)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for named in re.findall(r"langgraph-valkey\[(\w+)\]", README):
        assert named in extras["optional-dependencies"]
    for target in re.findall(r"\bmake ([a-z]+)", block.text):
        assert re.search(rf"^{target}:", MAKEFILE, re.M), target


def commands() -> list[str]:
    """Calls of the command in the shell blocks, without comments."""
    shell = "".join(block.text for block in blocks("sh"))
    return re.findall(r"^langgraph-valkey (.*?)\s*(?:#.*)?$", shell, re.M)


def test_each_command_of_the_program_is_named() -> None:
    program: Any = typer.main.get_command(app)  # A group of click, or of typer's own copy.
    section = README.split("\n## The command\n")[1].split("\n## How it works\n")[0]
    assert [name for name in program.commands if not re.search(rf"\b{name}\b", section)] == []


@pytest.mark.parametrize("call", commands())
def test_calls_of_the_command_can_be_read(call: str) -> None:
    program: Any = typer.main.get_command(app)  # A group of click, or of typer's own copy.
    name, *arguments = shlex.split(call)
    # It reads the arguments, as a call does, and does nothing.
    program.commands[name].make_context(name, arguments)


def test_targets_named_in_sentences_exist() -> None:
    for target in re.findall(r"`make ([a-z]+)", README):
        assert re.search(rf"^{target}:", MAKEFILE, re.M), target


def test_files_that_the_makefile_names_exist() -> None:
    for name in re.findall(r"tests/\w+\.py", MAKEFILE):
        assert (ROOT / name).exists(), name


def test_the_server_configuration_points_into_the_block_before_it() -> None:
    [block] = blocks("json")
    file, _, name = json.loads(block.text)["checkpointer"]["path"].partition(":")
    assert file == "./checkpointer.py"
    source = next(b.text for b in blocks("python") if b.text.startswith("# checkpointer.py"))
    defined = [node.name for node in ast.parse(source).body if hasattr(node, "name")]
    assert defined == [name]


def anchors() -> set[str]:
    """Anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", README, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 10
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors(), link
        elif not link.startswith("https://"):
            assert (ROOT / link).exists() or is_drawn(link), link


def is_drawn(link: str) -> bool:
    """Whether it is a plot that ``make bench`` draws."""
    drawn = ("step-time", "bytes-stored", "rag-stream", "rag-pairs")
    return link in {f"benchmarks/results/{name}.svg" for name in drawn}


# --- tables ------------------------------------------------------------------------


def attributes(documented: type) -> dict[str, str]:
    """The attributes of a class by its docstring."""
    text = (documented.__doc__ or "").partition("Attributes:")[2]
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", text, re.M)
    return {name: re.sub(r"\s+", " ", said) for name, said in found}


def settings_table() -> str:
    """The table of settings in the README."""
    said = attributes(ConnectionSettings) | attributes(Settings)
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{name}` | {shown(field.default)} | {said[name]} |")
    return "\n".join(rows)


def tier_settings_table() -> str:
    """The table of the settings of `StateTiers` in the README."""
    said = attributes(TierSettings)
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in TierSettings.model_fields.items():
        rows.append(f"| `{name}` | {shown(field.default)} | {said[name]} |")
    return "\n".join(rows)


def cache_settings_table() -> str:
    """The table of what a semantic cache has to set beside its connection."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, said in attributes(CacheSettings).items():
        default = shown(CacheSettings.model_fields[name].default)
        if name == "ttl_s":
            default = ", ".join(f"`{kind}` {life_s:.0f}" for kind, life_s in TTL_S.items())
        rows.append(f"| `{name}` | {default} | {said} |")
    return "\n".join(rows)


def shown(default: object) -> str:
    if default is PydanticUndefined:
        return "needed"
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ", ".join(f"`{host}:{port}`" for host, port in default)
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def errors_table() -> str:
    """The table of errors in the README, from the docstring of `errors`."""
    lines = (errors.__doc__ or "").splitlines()
    edges = [n for n, line in enumerate(lines) if line.startswith("===")]
    rows = ["| error | was anything applied? | what to do |", "|---|---|---|"]
    for line in lines[edges[1] + 1 : edges[2]]:
        name, applied, advice = re.split(r"\s{2,}", line, maxsplit=2)
        rows.append(f"| `{name}` | {applied} | {advice} |")
    return "\n".join(rows)


TABLES = {
    "settings": settings_table,
    "tier-settings": tier_settings_table,
    "cache-settings": cache_settings_table,
    "errors": errors_table,
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_code(name: str) -> None:
    table = TABLES[name]()
    match = re.search(rf"<!-- {name} -->\n(.*?)\n?<!-- /{name} -->", README, re.S)
    assert match is not None
    assert match[1] == table


def test_every_error_is_in_the_table() -> None:
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert set(re.findall(r"`(\w+)`", errors_table())) == raised - {"LanggraphValkeyError"}


def test_variables_named_exist() -> None:
    fields = {name.upper() for name in Settings.model_fields} | {"URL"}
    fields |= {name.upper() for name in TierSettings.model_fields}
    fields |= {"CACHE_URL", "COORDINATION_URL"}
    assert set(re.findall(r"LANGGRAPH_VALKEY_([A-Z_]+)", README)) <= fields


def test_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = dict(re.findall(r"^\| ([\w-]+)[^|]* \| ([\d.]+)", README, re.M))
    wanted = " ".join([*project["dependencies"], *project["optional-dependencies"]["demo"]])
    for name in ("langgraph-checkpoint", "langchain-core"):
        assert f"{name}>={stated[name]}," in wanted
    assert f"langgraph>={stated['LangGraph']}" in wanted
    assert f"valkey-glide=={stated['valkey-glide']}" in wanted
    assert f">={stated['Python']}" == project["requires-python"]

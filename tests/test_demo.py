"""The demo, run as its users run it: as a program in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.agent.documents import REPOSITORY, Library
from examples.agent.models import chat_model
from examples.agent.tools import make_tools

PROGRAM = [sys.executable, "-m", "examples.agent"]
ENOUGH_S = 90.0
WIDTH_MOST = 100
CITED = re.compile(r"(?P<said>[^\[\]]+?) \[(?P<path>\S+) # (?P<heading>[^\]]+)\]")


def run(*options: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, options)],
        cwd=REPOSITORY,
        input=typed,
        capture_output=True,
        text=True,
        timeout=ENOUGH_S,
    )


def ended_well(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= WIDTH_MOST
    return done.stdout


def no_server_on(data_dir: Path) -> bool:
    """Whether no server runs there: each holds a lock on its directory as long as it lives."""
    with (data_dir / "valkey" / "lock").open("r+") as lock:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
            else:
                return True
    return False


def flat(text: str) -> str:
    return " ".join(text.split())


def cited(output: str) -> list[str]:
    """What the agent's last answer cites, each checked to stand in the document it names."""
    answer = flat(re.split(r"^  agent    ", output, flags=re.MULTILINE)[-1])
    library, said = Library(), []
    for found in CITED.finditer(answer):
        passages = library.read(found["path"], found["heading"])
        assert passages, found["heading"]
        text = flat(" ".join(passage.text for passage in passages))
        # Sentences are chosen one by one, so each must stand there for itself.
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z`*\"(])", found["said"].strip()):
            assert sentence in text
            said.append(sentence)
    return said


def acts(output: str) -> dict[str, str]:
    """The tour's acts by their titles."""
    _, *parts = re.split(r"^\d  (\S.*?)  ─+$", output, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The output of a tour, and the data directory that it was to make."""
    data_dir = tmp_path_factory.mktemp("tour") / "data"
    return ended_well(run("--data-dir", data_dir)), data_dir


def test_the_tour_leaves_nothing_behind(tour: tuple[str, Path]) -> None:
    output, data_dir = tour
    assert not data_dir.exists()
    pids = [
        int(pid) for pid in re.findall(r"kill -9 (\d+)|(?:server|agent) (\d+)", output)[0] if pid
    ]
    pids += [int(pid) for pid in re.findall(r"(?:server|agent) (\d+)", output)]
    assert len(pids) >= 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_killed_agent_is_resumed_by_another_process(tour: tuple[str, Path]) -> None:
    act = acts(tour[0])
    killed = re.findall(
        r"killed   kill -9 (\d+), the (agent, while it waits|server)", act["Ask, and be killed"]
    )
    first = next(pid for pid, what in killed if what.startswith("agent"))
    assert len(killed) == 2
    resumed = re.search(r"started  server (\d+), agent (\d+)", act["Go on"])
    assert resumed is not None
    server, second = resumed.groups()
    assert len({first, second, server}) == 3

    assert "Write it? [y/n] \n" in act["Ask, and be killed"]
    assert "search_documents" not in act["Go on"]
    assert "Write it? [y/n] y\n" in act["Go on"]
    assert "<- written to " in act["Go on"]
    by = re.findall(r"^ +(-?\d+)  [0-9a-f-]{18} +(\d+) ", act["History"], flags=re.MULTILINE)
    assert [int(step) for step, _ in by] == list(range(-1, len(by) - 1))
    assert [pid for pid, _ in itertools.groupby(pid for _, pid in by)] == [first, second]


def test_the_answer_stands_in_the_documents(tour: tuple[str, Path]) -> None:
    answered = acts(tour[0])["Go on"].partition("\n  written")[0]
    assert len(cited(answered)) >= 1


def test_time_travel_shows_both_branches(tour: tuple[str, Path]) -> None:
    act = acts(tour[0])["Time travel"]
    forked, _, kept = act.partition("Both branches are kept:")
    first, second = cited(kept), cited(forked)
    assert first
    assert second
    assert set(first).isdisjoint(second)
    assert first == cited(acts(tour[0])["Go on"].partition("\n  written")[0])
    assert "declined by the user, nothing written" in forked
    rows = re.findall(r"^   (\d)  \S.*?   (\d)  \S", kept, flags=re.MULTILINE)
    assert len(rows) >= 5


def test_each_thread_takes_less_than_whole_states_would(tour: tuple[str, Path]) -> None:
    act = acts(tour[0])
    rows = re.findall(r"^  (\w+) +(\d+) .* ([\d.]+) x$", act["Bytes"], flags=re.MULTILINE)
    ratios = {thread: float(ratio) for thread, _, ratio in rows}
    assert min(ratios.values()) > 1
    assert max(ratios, key=ratios.__getitem__) == "fay"  # the longest
    listed = re.findall(r"^  (\w+) +(\d+) +\d+ +\d+  \S", act["Many threads"], flags=re.MULTILINE)
    assert sorted(listed) == sorted((t, n) for t, n, _ in rows if t != "all")


def test_a_tour_on_a_directory_that_was_there_keeps_it(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "mine").write_text("mine")
    output = ended_well(run("--data-dir", data_dir, "--question", "Are quokkas wombats?"))
    assert "The documents say nothing about" in acts(output)["Ask, and be killed"]
    assert "the agent, after it answered" in acts(output)["Ask, and be killed"]
    assert (data_dir / "mine").read_text() == "mine"
    assert no_server_on(data_dir)


def test_another_question_gets_another_answer(tmp_path: Path) -> None:
    questions = ("What does CorruptState mean?", "How long is a tombstone kept?")
    outputs = [
        ended_well(
            run("--data-dir", tmp_path, "--thread", str(n), "--question", question, typed="y\n")
        )
        for n, question in enumerate(questions)
    ]
    first, second = map(cited, outputs)
    assert first
    assert second
    assert set(first).isdisjoint(second)
    assert len(list((tmp_path / "notes").glob("*.md"))) == 2


def test_a_chat_in_which_the_note_is_declined_and_another_goes_on(tmp_path: Path) -> None:
    chat = ("--interactive", "--data-dir", tmp_path, "--thread", "mine")
    output = ended_well(run(*chat, typed="What does ForkDetected tell?\nperhaps\nn\n"))
    assert "Thread mine is new." in output
    assert output.count("Write it? [y/n]") == 2  # "perhaps" is no answer
    assert "You declined the note; nothing was written." in output
    assert not (tmp_path / "notes").exists()
    assert no_server_on(tmp_path)

    output = ended_well(run(*chat, typed="And StoreFull?\n"))
    assert "The last question was: What does ForkDetected tell?" in output
    assert "StoreFull" in output.rpartition("agent    ")[2]


def started(*options: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, options)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], what: str) -> str:
    """Read what it prints until something comes."""
    assert process.stdout is not None
    text, deadline, descriptor = "", time.monotonic() + ENOUGH_S / 2, process.stdout.fileno()
    while what not in text:
        ready, _, _ = select.select([descriptor], [], [], deadline - time.monotonic())
        assert ready, text
        more = os.read(descriptor, 4096).decode()
        assert more, text
        text += more
    return text


def test_a_chat_killed_in_the_middle_goes_on(tmp_path: Path) -> None:
    chat = ("--data-dir", tmp_path, "--thread", "mine")
    with started(*chat, "--question", "What does CorruptState mean?") as process:
        read_until(process, "-> search_documents")
        process.send_signal(signal.SIGKILL)
    output = ended_well(run(*chat, typed="y\n"))
    assert "The last question was: What does CorruptState mean?" in output
    assert cited(output)
    assert no_server_on(tmp_path)


def test_ctrl_c_keeps_the_thread(tmp_path: Path) -> None:
    with started("--interactive", "--data-dir", tmp_path) as process:
        read_until(process, "you ")
        # As a person does: again, if it came in the instant before the program
        # began to wait for input, where Python notices it only with the next line.
        for _ in range(5):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ENOUGH_S / 10)  # communicate() would end its input
                break
        output, errors = process.communicate(timeout=ENOUGH_S / 2)
    assert process.returncode == 130
    assert errors == ""
    assert "What was done is kept" in output
    assert no_server_on(tmp_path)


def test_ctrl_c_ends_the_tour_and_all_that_it_started(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with started("--data-dir", data_dir) as process:
        read_until(process, "-> search_documents")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=ENOUGH_S / 2)  # till all let go of the pipe
    assert process.returncode == 130
    assert errors == ""
    assert "Stopped." in output
    assert "Go on" not in output
    assert not data_dir.exists()


def test_a_wrong_model_is_told_in_a_sentence(tmp_path: Path) -> None:
    done = run("--model", "no-such-provider:x", "--data-dir", tmp_path / "data")
    assert done.returncode == 1
    assert "the chat model no-such-provider:x can't be made" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_any_model_of_langchain_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    monkeypatch.setattr("langchain.chat_models.init_chat_model", named.append)
    chat_model("openai:gpt-4o")
    assert named == ["openai:gpt-4o"]


@pytest.mark.parametrize("path", ["../out.md", "/etc/out.md", ".", "a/../../out.md"])
def test_notes_stay_in_their_directory(tmp_path: Path, path: str) -> None:
    tools = {tool.name: tool for tool in make_tools(Library(), tmp_path / "notes")}
    # Refused before it asks: outside of a graph the question itself would raise.
    told = tools["write_note"].invoke({"path": path, "text": "text"})
    assert "outside of the notes" in told
    assert not list(tmp_path.rglob("*.md"))


def test_documents_are_cut_and_found(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "# Birds\n\n```sh\n# no heading\n```\n\n## Swifts\n\nSwifts sleep on the wing for long.\n"
    )
    package = tmp_path / "langgraph_valkey"
    package.mkdir()
    (package / "owls.py").write_text(
        '"""Owls hunt at night, and hear better than they see."""\n\n'
        'EGGS = 4\n"""How many eggs an owl lays in a spring."""\n'
    )
    library = Library(tmp_path)
    assert [p.heading for p in library.search("sleeping swift")] == ["Birds > Swifts"]
    assert [(p.path, p.heading, p.line) for p in library.search("eggs")] == [
        ("langgraph_valkey/owls.py", "EGGS", 3)
    ]
    assert library.search("penguin") == []
    assert library.lines("README.md") == 9
    assert library.lines("../README.md") is None

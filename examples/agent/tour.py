"""The tour: one agent, killed and resumed; its threads, history, branches and bytes.

The first two acts run the agent in processes of their own and kill one, along with
the server. What follows reads the same threads from this process.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass

from langchain_core.messages import HumanMessage

from examples.agent import branches
from examples.agent.branches import Step
from examples.agent.chat import Options, notes_in, valkey_in
from examples.agent.child import AgentProcess
from examples.agent.conversation import Conversation
from examples.agent.crowd import QUESTIONS, fill
from examples.agent.documents import Library
from examples.agent.graph import Agent, build_agent
from examples.agent.models import OFFLINE, chat_model
from examples.agent.show import Screen, short, size
from examples.agent.sizes import sizes
from examples.agent.tools import WRITTEN, make_tools
from langgraph_valkey import ValkeySaver
from langgraph_valkey.local import LocalValkey

THREAD = "ada"
QUESTION = "How is a growing list stored without writing it again at each step?"
OTHER_QUESTION = "What happens when the server refuses a write?"


@dataclass(frozen=True, slots=True)
class Stage:
    """What the acts play on."""

    options: Options
    screen: Screen
    valkey: LocalValkey
    saver: ValkeySaver
    agent: Agent
    library: Library


def tour(options: Options, screen: Screen) -> None:
    """Run all acts.

    Raises:
        DemoError: The model can't be had, or fails.
        LanggraphValkeyError: The server can't be had, or fails.
    """
    ours = not options.data_dir.exists()
    try:
        with valkey_in(options.data_dir) as valkey:
            library, model = Library(), chat_model(options.model)
            _open(options, screen, valkey, library)
            first = _killed(options, screen, valkey)
            valkey.restart()
            with ValkeySaver.from_url(valkey.url) as saver:
                tools = make_tools(library, notes_in(options.data_dir))
                agent = build_agent(model, tools, saver)
                stage = Stage(options, screen, valkey, saver, agent, library)
                _resumed(stage, first)
                _travel(stage)
                _threads(stage)
                _bytes(stage)
    finally:
        if ours and not options.keep:
            shutil.rmtree(options.data_dir, ignore_errors=True)
    _close(options, screen, kept=options.keep or not ours)


def _open(options: Options, screen: Screen, valkey: LocalValkey, library: Library) -> None:
    info = valkey.command("INFO", "server")
    fields = info.decode() if isinstance(info, bytes) else ""
    version = fields.partition("valkey_version:")[2].split("\r")[0]
    rows = {
        "knows": f"{len(library.paths)} documents of this repository, "
        f"{len(library.passages)} passages",
        "thinks": f"{options.model} chat model",
        "keeps": f"Valkey {version} in {options.data_dir}, cluster mode, append-only file",
    }
    screen.line("\n" + screen.styled("A LangGraph agent on Valkey", "bold"))
    for label, value in rows.items():
        screen.text(value, label, label_style="dim")
    with ValkeySaver.from_url(valkey.url) as saver:
        for thread in (THREAD, *QUESTIONS):
            saver.delete_thread(thread)  # of an earlier tour on this directory


def _killed(options: Options, screen: Screen, valkey: LocalValkey) -> int:
    """Play the first act; return the id of the process that was killed."""
    screen.act(1, "Ask, and be killed", f"The agent is a process, and talks on thread {THREAD}.")
    question = options.question or QUESTION
    with AgentProcess(valkey.url, THREAD, options.model, options.data_dir, question) as process:
        told = process.wait_until_told()
        server = valkey.pid
        process.kill()
        valkey.kill()
    waits = told == "waiting"
    screen.line("\n" if waits else "")  # ends the line of its prompt
    where = "while it waits for you" if waits else "after it answered"
    screen.text(f"kill -9 {process.pid}, the agent, {where}", "killed", label_style="red")
    screen.text(f"kill -9 {server}, the server", "killed", label_style="red")
    return process.pid


def _resumed(stage: Stage, first: int) -> None:
    screen, options, valkey = stage.screen, stage.options, stage.valkey
    screen.act(2, "Go on", "A new server on the same directory, and a new process of the agent.")
    talk = Conversation(stage.agent, THREAD, screen)
    killed_at = (talk.state().metadata or {}).get("step", 0)
    with AgentProcess(valkey.url, THREAD, options.model, options.data_dir) as process:
        screen.text(f"server {valkey.pid}, agent {process.pid}", "started", label_style="green")
        process.finish("y\n")
    screen.line()
    for message in talk.state().values["messages"]:
        if message.name == "write_note" and message.text.startswith(WRITTEN):
            note = notes_in(options.data_dir) / message.text.removeprefix(WRITTEN)
            screen.text(f"{note}, {note.stat().st_size} bytes", "written", label_style="green")
    screen.act(3, "History", f"Thread {THREAD}, a checkpoint a step, and the process that made it.")
    line = _line(stage)
    branches.show_history(screen, line, killed_at, (first, process.pid))


def _line(stage: Stage) -> list[Step]:
    """The branch that the thread is on."""
    tree = branches.steps(stage.saver, THREAD)
    return branches.line_to(tree, max(tree))


def _threads(stage: Stage) -> None:
    screen = stage.screen
    questions = sum(map(len, QUESTIONS.values()))
    screen.act(
        5,
        "Many threads",
        f"{len(QUESTIONS)} more threads, {questions} questions, all at once on the async face.",
    )
    model = chat_model(OFFLINE)  # a crowd would be a bill with any other
    tools = make_tools(stage.library, notes_in(stage.options.data_dir))
    crowd = build_agent(model, tools, stage.saver)
    asyncio.run(fill(crowd, lambda done, of: screen.progress(f"{done} of {of} answered")))
    screen.progress_done(f"{questions} of {questions} answered\n")
    latest: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for found in stage.saver.list(None):
        thread = found.config["configurable"]["thread_id"]
        counts[thread] = counts.get(thread, 0) + 1
        if thread not in latest:  # newest first
            messages = found.checkpoint["channel_values"]["messages"]
            asked = [message.text for message in messages if message.type == "human"]
            latest[thread] = [str(len(asked)), str(len(messages)), short(asked[-1], 54)]
    rows = [[name, str(counts[name]), *latest[name]] for name in sorted(latest)]
    heads = ("thread", "checkpoints", "questions", "messages", "last question")
    screen.table(heads, rows, right="<>>><")


def _travel(stage: Stage) -> None:
    screen, agent, old = stage.screen, stage.agent, _line(stage)
    screen.act(
        4,
        "Time travel",
        "Back to the checkpoint with the question, another question in its place, and on. "
        "This time the note is declined.",
    )
    asked = next(step for step in old if step.messages)
    past = Conversation(agent, THREAD, screen, asked.id)
    question = past.state().values["messages"][-1]
    other = HumanMessage(OTHER_QUESTION, id=question.id)  # the same id: it is replaced
    agent.update_state(past.config, {"messages": [other]}, as_node="__start__")
    fork = Conversation(agent, THREAD, screen)  # the fork is the thread's latest now
    fork.show_question(OTHER_QUESTION)
    fork.go_on()
    while fork.pending() is not None:
        fork.show_pending()
        screen.text("declined", "", style="yellow")
        fork.decide(approved=False)
    screen.line("\n  Both branches are kept:\n", "dim")
    branches.show_two(screen, old, _line(stage))
    screen.line()
    screen.text("Read again by its checkpoint id, the first branch still ends with:", style="dim")
    end = Conversation(agent, THREAD, screen, old[-1].id).state().values["messages"][-1]
    screen.text(end.text, "agent")


def _bytes(stage: Stage) -> None:
    screen = stage.screen
    screen.act(
        6,
        "Bytes",
        "What the server says each thread takes, overhead included; and the bare bytes of the "
        "same checkpoints, had each been stored whole.",
    )
    found = sizes(stage.valkey, stage.saver, (THREAD, *QUESTIONS))
    rows = [
        (
            each.thread,
            str(each.checkpoints),
            size(each.stored_bytes),
            size(each.whole_bytes),
            f"{each.whole_bytes / each.stored_bytes:.1f} x",
        )
        for each in found
    ]
    stored = sum(each.stored_bytes for each in found)
    whole = sum(each.whole_bytes for each in found)
    total = str(sum(each.checkpoints for each in found))
    rows.append(("all", total, size(stored), size(whole), f"{whole / stored:.1f} x"))
    heads = ("thread", "checkpoints", "stored", "stored whole", "ratio")
    screen.table(heads, rows, right="<>>>>")
    screen.text("The ratio grows with the thread: whole states add up to its square.", style="dim")


def _close(options: Options, screen: Screen, *, kept: bool) -> None:
    where = options.data_dir
    told = f"Kept in {where}." if kept else f"{where} is removed again; --keep keeps it."
    thread = f" --thread {THREAD}" if kept else ""
    screen.line()
    screen.text(f"{told} Your turn:", style="dim")
    screen.line(f'  make demo-cli ARGS="--interactive{thread}"\n')

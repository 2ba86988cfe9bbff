"""The demo's page in a real browser: what a visitor does, and sees.

It drives a Chromium that is installed. ``SCREENSHOTS=folder`` keeps what the page looked
like; one of these pictures is the README's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from examples.agent_app.visitor import Visitor
from tests.agent_app_ground import app, visitor

__all__ = ["app", "visitor"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ,
        reason="no Chromium is installed: apt-get install chromium",
    ),
]

FLAGS = [
    "--no-sandbox",  # It can't have one as root, and it sees nothing but this page.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

ENOUGH_MS = 40_000
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
TALL = {"width": 1280, "height": 1180}
"""What shows all of the page."""

ORDER = "I'd like three desk lamps"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "no Chromium is installed: apt-get install chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


class Window:
    """A page, and what went wrong on it.

    Args:
        context: Of the browser.
        url: Of the demo.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.troubles: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(ENOUGH_MS)
        self.page.on("console", self._logged)
        self.page.on("pageerror", lambda error: self.troubles.append(f"raised: {error}"))
        self.page.on("request", self._requested)
        self.page.goto(url)
        self.ready()

    def _logged(self, message: ConsoleMessage) -> None:
        # An outage is answered by 503, which the browser logs by itself.
        if message.type in ("error", "warning") and "503" not in message.text:
            self.troubles.append(f"logged: {message.text}")

    def _requested(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.troubles.append(f"asked elsewhere: {request.url}")

    def ready(self) -> None:
        self.page.wait_for_selector("body[data-ready]")

    def new_conversation(self) -> str:
        self.page.click("#new")
        return str(self.page.evaluate("location.hash.slice(1)"))

    def say(self, text: str) -> None:
        """Type something and press Enter."""
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")

    def answer(self, text: str | re.Pattern[str]) -> None:
        """Wait until the agent's last word is this one, whole."""
        expect(self.page.locator(".message.agent").last).to_have_text(
            text if isinstance(text, re.Pattern) else re.compile(re.escape(text)), timeout=ENOUGH_MS
        )
        expect(self.page.locator("#status")).to_have_text("", timeout=ENOUGH_MS)

    def order(self) -> None:
        """Order something, and wait for the card that asks for approval."""
        self.say(ORDER)
        expect(self.page.locator(".approval")).to_contain_text("135.00", timeout=ENOUGH_MS)

    def told(self, kind: str) -> str:
        """The newest entry of a kind in the timeline; waits for one."""
        found = self.page.locator(f'[data-kind="{kind}"]').first
        expect(found).to_be_visible(timeout=ENOUGH_MS)
        return found.inner_text()

    def take(self, name: str, *, whole: bool = False) -> None:
        """Take a picture, where they are kept."""
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            path = Path(folder, f"{name}.png")
            self.page.screenshot(path=path, full_page=whole, animations="disabled")


@pytest.fixture
def window(browser: Browser, visitor: Visitor) -> Iterator[Window]:
    """A wide, light window on an app with nothing broken; at the end nothing was logged."""
    context = browser.new_context(viewport=WIDE, color_scheme="light")  # type: ignore[arg-type]
    opened = Window(context, visitor.url)
    yield opened
    context.close()
    assert opened.troubles == []


def paid_once(visitor: Visitor, thread: str) -> bool:
    orders = [each for each in visitor.orders() if each["thread"] == thread]
    return [(each["state"], each["charges"]) for each in orders] == [("paid", 1)]


def test_a_visitor_asks_orders_and_approves_by_keyboard(window: Window, visitor: Visitor) -> None:
    page = window.page
    expect(page.locator("#entries")).to_contain_text("Try this")
    thread = window.new_conversation()
    page.keyboard.type("How many days do I have to return something?")
    page.keyboard.press("Enter")
    window.answer("14 days")
    expect(page.locator(".tool .tag").last).to_have_text("model")
    window.say("How many days do I have to return things?")
    window.answer("14 days")
    expect(page.locator(".tool .tag").last).to_have_text("cache")
    window.order()
    page.focus("#approve")
    page.keyboard.press("Enter")
    window.answer("is paid")
    expect(page.locator("#ledger td").first).to_have_text(re.compile(r"\d{4}"))
    assert paid_once(visitor, thread)
    page.reload()
    window.ready()
    assert page.evaluate("location.hash.slice(1)") == thread
    window.answer("is paid")
    expect(page.locator(".message.customer")).to_have_count(3)


def test_a_primary_is_killed_and_nothing_is_missing(window: Window, visitor: Visitor) -> None:
    page, thread = window.page, window.new_conversation()
    window.say("How long does delivery take?")
    window.answer("2 to 3 working days")
    window.order()
    page.click("#fault-log")
    expect(page.locator("#fault-log")).to_have_text("Release the log")
    page.click("#approve")
    window.answer("is paid")
    expect(page.locator('.shard[aria-checked="true"] .state')).to_have_text("log held")
    page.wait_for_timeout(2000)  # For the picture: the lag climbs.
    page.click("#fault-kill")
    assert "ahead of where the new one began" in window.told("lost")
    assert "written back from the agent's journal" in window.told("replayed")
    assert "Nothing is missing" in window.told("kept")
    assert "Charged once" in window.told("charged")
    window.answer("is paid")
    assert paid_once(visitor, thread)
    page.set_viewport_size(TALL)  # type: ignore[arg-type]
    page.mouse.move(0, 0)
    window.take("screenshot")
    page.click("#theme")
    window.take("wide-dark")


def test_agent_and_primary_are_killed_together(window: Window, visitor: Visitor) -> None:
    page, thread = window.page, window.new_conversation()
    window.say("Hello")
    window.answer("I never charge a card without asking you")
    page.click("#fault-log")
    expect(page.locator("#fault-log")).to_have_text("Release the log")
    window.say(ORDER)
    expect(page.locator("#status")).to_contain_text("at work")
    page.click("#fault-both")
    assert "that nobody can replay now" in window.told("agent_killed")
    assert "run again" in window.told("rerun")
    assert "Nothing is missing" in window.told("kept")
    expect(page.locator("#agent")).to_contain_text("Agent up")
    page.click("#approve")
    window.answer("is paid")
    assert paid_once(visitor, thread)


def test_writes_are_refused_and_accepted_again(window: Window, visitor: Visitor) -> None:
    page, thread = window.page, window.new_conversation()
    window.order()
    page.click("#fault-reject")
    expect(page.locator("#fault-reject")).to_have_text("Accept writes")
    page.click("#approve")
    expect(page.locator("#status")).to_contain_text("refuses writes")
    page.click("#fault-reject")
    window.answer("is paid")
    assert "accepts writes again" in window.told("accepting")
    assert paid_once(visitor, thread)


def test_a_page_is_edited_and_the_stale_answer_refused(window: Window) -> None:
    page = window.page
    window.new_conversation()
    window.say("When do I get my money back?")
    window.answer("within 5 working days")
    page.get_by_role("button", name="returns.md").click()
    text = page.locator("#page-text")
    expect(text).to_be_focused()
    text.fill(text.input_value().replace("5 working days", "3 working days"))
    page.click("#page-save")
    expect(page.locator("#toast")).to_contain_text("returns.md is version")
    window.say("When do I get my money back?")
    window.answer("within 3 working days")
    expect(page.locator(".tool .tag").last).to_have_text("stale refused")
    assert "A stale answer was refused" in window.told("stale_refused")


def test_a_visitor_goes_back_in_time(window: Window, visitor: Visitor) -> None:
    page, thread = window.page, window.new_conversation()
    window.order()
    page.click("#approve")
    window.answer("is paid")
    page.click("#history-open")
    window.take("history")
    asked = page.locator("#checkpoints li", has_text="waits for approval")
    asked.get_by_role("button").click()
    expect(page.locator(".approval")).to_be_visible(timeout=ENOUGH_MS)
    expect(page.locator(".message.agent")).to_have_count(2)
    page.click("#decline")
    window.answer("was paid before")  # On the other branch: that is not undone.
    assert paid_once(visitor, thread)
    page.click("#history-open")
    expect(page.locator("#checkpoints .aside").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#history")).to_be_hidden()


def test_replay_is_switched_off_and_the_loss_shows(window: Window, visitor: Visitor) -> None:
    page = window.page
    page.click("#replay")
    expect(page.locator("#replay")).to_have_attribute("aria-checked", "false", timeout=ENOUGH_MS)
    expect(page.locator("#agent")).to_contain_text("Agent up", timeout=ENOUGH_MS)
    window.new_conversation()
    window.say("Hello")
    window.answer("I never charge a card without asking you")
    page.click("#fault-log")
    expect(page.locator("#fault-log")).to_have_text("Release the log")
    window.say("How long does delivery take?")
    window.answer("2 to 3 working days")
    page.click("#fault-kill")
    assert "How long does delivery take?" in window.told("missing")
    expect(page.locator(".message.customer", has_text="delivery")).to_have_count(0)
    window.take("lost")
    page.click("#replay")
    expect(page.locator("#replay")).to_have_attribute("aria-checked", "true", timeout=ENOUGH_MS)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, visitor: Visitor, theme: str) -> None:
    context = browser.new_context(
        viewport=NARROW,  # type: ignore[arg-type]
        color_scheme=theme,  # type: ignore[arg-type]
        has_touch=True,
    )
    window = Window(context, visitor.url)
    page = window.page
    window.new_conversation()
    window.order()
    page.tap("#approve")
    window.answer("is paid")
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    small = page.evaluate(
        "[...document.querySelectorAll('button')].filter((each) => each.offsetParent"
        " && each.getBoundingClientRect().height < 24).map((each) => each.textContent)"
    )
    assert small == []
    window.take(f"phone-{theme}", whole=True)
    context.close()
    assert window.troubles == []


def test_everything_can_be_reached_by_keyboard(window: Window) -> None:
    page = window.page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()
    reached: set[str] = set()
    page.focus("#replay")
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.id || document.activeElement.className")
        reached.add(str(focused).split(" ")[0])
    buttons = {"fault-log", "fault-kill", "fault-freeze", "fault-reject", "fault-agent"}
    assert {"theme", "history-open", "new", "text", "send", "shard", "fault-both"} <= reached
    assert buttons <= reached
    page.locator('.shard[tabindex="0"]').focus()
    before = page.locator('.shard[aria-checked="true"] strong').inner_text()
    page.keyboard.press("ArrowRight")
    expect(page.locator('.shard[aria-checked="true"] strong')).not_to_have_text(before)
    assert page.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"

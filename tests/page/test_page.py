"""The page in a browser, as a person uses it: by voice, by keyboard, on a telephone, in the dark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omni2_engine import Engine
from omni2_serve.access import Access
from omni2_serve.engine_host import engine_host
from omni2_serve.limits import ServiceLimits
from omni2_serve.service import Service

from ..held_answers import holding
from ..serve.running import RunningServer
from ..waiting import SOON
from .conftest import Speaker, until

SIZES = {"desktop": (1200, 800), "telephone": (390, 844)}
SCHEMES = ("light", "dark")
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COUNT_DOWN, CAPITAL = 82, 135  # questions; the answer to the first is long
HELD_AFTER = 2.0  # seconds of sound: an answer that is to be interrupted
KEY = "a-key-of-the-page-tests"


@pytest.fixture(scope="module")
def engine(demo_engine_dir: Path) -> Iterator[Engine]:
    with Engine.load(demo_engine_dir, threads=1, sessions=2) as engine:
        yield engine


@pytest.fixture
def serve(engine: Engine) -> Iterator[Callable[..., str]]:
    """Starts servers; gives their addresses. After `held_after` seconds of sound an answer waits to be interrupted."""
    running: list[RunningServer] = []

    def start(typed_turns: bool | None = None, held_after: float | None = None, **options: Any) -> str:
        host = engine_host(engine, typed_turns=typed_turns, chunks="fixed")
        if held_after is not None:
            host = holding(host, held_after)
        running.append(RunningServer(Service(host, **options)))
        return f"http://{running[-1].address}/"

    yield start
    for server in running:
        server.stop()


class Page:
    """A page, and what a person does and sees on it.

    Args:
        browser: whose window it opens.
        address: of the server.
        size: pixels.
        scheme: "light" or "dark".
        spoken_to: its microphone is `speaker` instead of the browser's.

    Attributes:
        requests: addresses that it asked for.
    """

    def __init__(
        self,
        browser: Any,
        address: str,
        size: tuple[int, int] = SIZES["desktop"],
        scheme: str = "light",
        spoken_to: bool = False,
    ) -> None:
        viewport = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, has_touch=size[0] < 500)
        self.context.set_default_timeout(1000 * SOON)
        self.tab = self.context.new_page()
        self.tab.add_init_script(path=Path(__file__).parent / "watch.js")
        self.speaker = Speaker(self.tab) if spoken_to else None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("websocket", lambda socket: self.requests.append(socket.url))
        self.tab.goto(address)

    def ready(self) -> Page:
        """Wait until it knows the model."""
        self.tab.wait_for_selector("#start:enabled")
        return self

    def waits(self, condition: str) -> None:
        """Until a JavaScript expression holds; asked from outside, as the page's policy lets no text be run within."""
        until(self.tab, condition)

    def shows(self, status: str) -> None:
        """Until the status is this."""
        self.waits(f"document.getElementById('status').textContent === {json.dumps(status)}")

    def has_shown(self, status: str) -> None:
        """Until the status is or was this."""
        self.waits(f"shown.has({json.dumps(status)})")

    def text(self, selector: str) -> str:
        return str(self.tab.inner_text(selector))

    def focused(self) -> str:
        """The id of the element that has the keyboard; of a choice its value."""
        return str(self.tab.evaluate("document.activeElement.id || document.activeElement.value"))

    def close(self) -> None:
        assert self.errors == []
        self.context.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., Page]]:
    """Opens pages."""
    pages: list[Page] = []

    def open_page(*args: Any, **options: Any) -> Page:
        pages.append(Page(*args, **options))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture
def looked_at(packages: Path, repository: Path) -> Callable[[Page, str], None]:
    """Takes a picture for people, and lets axe-core find what is wrong for those who cannot see it."""
    pictures = repository / "build" / "clients" / "pictures"
    pictures.mkdir(exist_ok=True)
    axe = (packages / "axe-core" / "axe.min.js").read_text(encoding="utf-8")

    def look(page: Page, name: str) -> None:
        page.tab.screenshot(path=pictures / f"{name}.png")
        page.tab.evaluate(axe)
        found = page.tab.evaluate("standards => axe.run(document, { runOnly: standards })", STANDARDS)
        violations = {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found["violations"]}
        assert violations == {}, name
        assert page.tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"

    return look


def question(repository: Path, number: int) -> Path:
    return repository / "examples" / "questions" / f"{number:03}-0.ogg"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_a_spoken_question_is_answered_and_the_answer_interrupted(
    browser: Any, serve: Any, opened: Any, looked_at: Any, repository: Path, size: str, scheme: str
) -> None:
    address = serve(held_after=HELD_AFTER)
    page = opened(browser.hearing(1.0), address, SIZES[size], scheme, spoken_to=True).ready()
    name = f"{size}-{scheme}"
    looked_at(page, f"{name}-1-idle")
    page.tab.click("#start")
    page.shows("Listening")
    page.speaker.say(question(repository, COUNT_DOWN))
    page.has_shown("You are speaking")
    looked_at(page, f"{name}-2-speaking")
    page.has_shown("Answering")
    page.waits("loudest.loudspeaker > 0.2")
    page.waits("document.querySelector('.turn.assistant .delay')")
    looked_at(page, f"{name}-3-answering")
    page.speaker.say(question(repository, CAPITAL))
    answers = "[...document.querySelectorAll('.turn.assistant')]"
    heard_and_cut = f"{answers}.findIndex((turn) => turn.querySelector('.delay') && turn.querySelector('small'))"
    page.waits(f"{heard_and_cut} >= 0")
    looked_at(page, f"{name}-4-interrupted")
    page.waits(f"{answers}.findLastIndex((turn) => turn.querySelector('.delay')) > {heard_and_cut}")
    page.waits("/eleven|edinburgh/i.test(document.getElementById('log').textContent)")
    looked_at(page, f"{name}-5-answered-again")
    _check_delay(page)
    page.tab.click("#end")
    page.shows("Not connected")
    looked_at(page, f"{name}-6-ended")


def _check_delay(page: Page) -> None:
    """The parts of an answer's delay are all told, and are the whole."""
    total = float(page.text(".delay strong").removesuffix(" s"))
    parts = [int(text.split()[0]) for text in page.tab.locator(".parts").first.locator("li").all_inner_texts()]
    assert len(parts) == 4 and parts[0] > 0
    assert abs(sum(parts) - 1000 * total) <= 5 + len(parts), "of rounding"


def test_push_to_talk_by_the_keyboard_alone(browser: Any, serve: Any, opened: Any, repository: Path) -> None:
    page = opened(browser.hearing(question(repository, CAPITAL), 0.5, loop=True), serve(held_after=HELD_AFTER)).ready()
    keyboard = page.tab.keyboard
    seen = []
    while "start" not in seen:
        keyboard.press("Tab")
        seen.append(page.focused())
    assert seen == ["log", "free", "start"]
    keyboard.press("Shift+Tab")
    keyboard.press("ArrowRight")
    assert page.focused() == "push"
    keyboard.press("Tab")
    keyboard.press("Enter")
    page.waits("document.activeElement.id === 'hold'")
    _hold_the_key(page)
    page.waits("document.querySelector('.turn.assistant .delay')")
    keyboard.press("Escape")
    page.shows("Ready")
    assert "interrupted" in page.text(".turn.assistant h2")
    _hold_the_key(page)
    page.waits("document.querySelectorAll('.turn.assistant .delay').length === 2")


def _hold_the_key(page: Page) -> None:
    """While something is said."""
    page.tab.keyboard.down(" ")
    page.shows("You are speaking")
    page.waits("loudest.microphone > 0.3")
    page.tab.wait_for_timeout(3000)  # the recording's length and more
    page.tab.keyboard.up(" ")


def test_typed_turns_are_offered_where_the_model_was_taught_them(
    browser: Any, serve: Any, opened: Any, looked_at: Any
) -> None:
    silent = browser.hearing(1.0)
    untaught = opened(silent, serve(typed_turns=False)).ready()
    assert untaught.tab.is_hidden("#typing") and untaught.tab.is_visible("#untaught")
    page = opened(silent, serve(typed_turns=True)).ready()
    assert page.tab.is_hidden("#untaught")
    page.tab.fill("#text", "What is your name?")
    page.tab.press("#text", "Enter")
    page.waits("document.querySelector('.turn.assistant .delay')")
    assert page.text(".turn.user .caption") == "What is your name?"
    assert page.text(".turn.assistant .caption") not in ("", "…")
    assert page.tab.is_visible("#start"), "the microphone is not opened for it"
    looked_at(page, "typed")
    for question in ("One?", "Two?", "Three?"):  # each stops the answer before, at any point of it
        page.tab.fill("#text", question)
        page.tab.press("#text", "Enter")
    page.waits("document.querySelectorAll('.turn.user').length === 4")
    page.waits("document.querySelector('.turn:last-child .delay')")
    assert page.text("#problem") == ""


def test_a_press_that_is_too_short_is_no_turn(browser: Any, serve: Any, opened: Any) -> None:
    page = opened(browser.hearing(1.0), serve()).ready()
    page.tab.check("input[value=push]")
    page.tab.click("#start")
    page.shows("Ready")
    page.tab.evaluate("() => { for (const _ of [1, 2]) document.getElementById('hold').click() }")
    page.waits("document.getElementById('problem').textContent.startsWith('Hold the button')")
    page.shows("Ready")
    assert page.tab.locator(".turn").count() == 0


def test_a_key_is_asked_for_and_kept_for_the_tab(browser: Any, serve: Any, opened: Any, looked_at: Any) -> None:
    page = opened(browser.hearing(1.0), serve(access=Access(keys=[KEY])))
    page.tab.wait_for_selector("#locked:visible")
    assert "wants a key" in page.text("#problem") and page.tab.is_disabled("#start")
    looked_at(page, "key")
    page.tab.fill("#key", "another-key-altogether")
    page.tab.press("#key", "Enter")
    page.waits("document.getElementById('problem').textContent.includes('not the server')")
    page.tab.fill("#key", KEY)
    page.tab.press("#key", "Enter")
    page.ready()
    assert page.tab.is_hidden("#locked") and page.text("#problem") == ""
    page.tab.click("#start")
    page.shows("Listening")
    page.tab.reload()
    page.ready()


def test_what_goes_wrong_is_said(browser: Any, serve: Any, opened: Any, looked_at: Any) -> None:
    silent, full = browser.hearing(1.0), serve(limits=ServiceLimits(sessions=0))
    page = opened(silent, full).ready()
    page.tab.click("#start")
    page.waits("document.getElementById('problem').textContent.includes('full')")
    page.shows("Not connected")
    assert page.tab.is_enabled("#start")
    looked_at(page, "full")
    deaf = opened(silent, serve()).ready()
    refuse = "async () => { throw new DOMException('', 'NotAllowedError') }"
    deaf.tab.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = {refuse} }}")
    deaf.tab.click("#start")
    deaf.waits("document.getElementById('problem').textContent.includes('may not use the microphone')")


def test_it_says_that_the_demo_is_a_toy_and_what_it_knows(browser: Any, serve: Any, opened: Any) -> None:
    page = opened(browser.hearing(1.0), serve()).ready()
    assert "toy" in page.text("#toy")
    assert len(page.tab.locator("#examples li").all()) == 12
    assert page.tab.locator("#voice option").all_inner_texts() == ["voice"]


def test_nothing_comes_from_elsewhere(browser: Any, serve: Any, opened: Any) -> None:
    address = serve()
    page = opened(browser.hearing(1.0), address).ready()
    page.tab.click("#start")
    page.shows("Listening")
    own = (address, address.replace("http", "ws"), "data:")
    assert [url for url in page.requests if not url.startswith(own)] == []
    assert {url.rpartition("/")[2].partition("?")[0] for url in page.requests} > {
        "",
        "main.js",
        "style.css",
        "realtime",
    }

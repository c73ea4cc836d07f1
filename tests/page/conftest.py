"""The demonstration model behind a real server, and a Chromium whose microphone is a recording."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from ..waiting import SOON

HERE = Path(__file__).parent
MICROPHONE_RATE = 48_000
PACKAGES = "build/clients/agents/node_modules"  # where `make test-clients` installs tests/clients/package.json
IN_A_BROWSER = ("test_page.py", "test_agents_webrtc.py")
INSTALLED_BY = "is not here; make test-clients installs what it can"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What needs a browser runs with the clients of others (`make test-clients`)."""
    return True if collection_path.name in IN_A_BROWSER and not config.getoption("--clients") else None


@pytest.fixture(scope="session")
def packages(repository: Path) -> Path:
    """The folder node_modules with what tests/page/package.json names."""
    path = repository / PACKAGES
    if not (path / "axe-core").is_dir():
        pytest.skip(f"axe-core {INSTALLED_BY}")
    return path


class Browser:
    """Chromium processes, each with a microphone of its own.

    Args:
        playwright: drives them.
        program: the Chromium to run.
        recordings: folder for what their microphones hear.
    """

    def __init__(self, playwright: Any, program: str, recordings: Path) -> None:
        self._playwright, self._program, self._recordings = playwright, program, recordings
        self._running: list[Any] = []

    def hearing(self, *sounds: Path | float, loop: bool = False) -> Any:
        """A browser whose microphone plays recordings and seconds of silence from when it is opened."""
        path = self._recordings / f"{len(self._running)}.wav"
        pieces = [_sound(sound) for sound in sounds]
        soundfile.write(path, np.concatenate(pieces), MICROPHONE_RATE, subtype="PCM_16")
        arguments = [
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={path}" + ("" if loop else "%noloop"),
        ]
        self._running.append(self._playwright.chromium.launch(executable_path=self._program, args=arguments))
        return self._running[-1]

    def close(self) -> None:
        for browser in self._running:
            browser.close()


class Speaker:
    """Speaks into a page's microphone at the moment a test chooses.

    Args:
        page: on which nothing was opened yet.
    """

    def __init__(self, page: Any) -> None:
        self._page = page
        page.add_init_script(path=HERE / "microphone.js")

    def say(self, recording: Path) -> None:
        """Begin to; the page has asked for the microphone already."""
        wav = io.BytesIO()
        soundfile.write(wav, _sound(recording), MICROPHONE_RATE, subtype="PCM_16", format="WAV")
        self._page.evaluate("wav => say(wav)", base64.b64encode(wav.getvalue()).decode())


def until(page: Any, condition: str, look: Callable[[], None] = lambda: None) -> None:
    """Until a JavaScript expression holds. It may await; `look` may find that it never will."""
    last = time.monotonic() + SOON
    while not page.evaluate(f"async () => !!({condition})"):
        look()
        assert time.monotonic() < last, f"after {SOON:.0f} s not yet: {condition}\n{page.inner_text('body')}"
        page.wait_for_timeout(20)


def _sound(sound: Path | float) -> np.ndarray[Any, Any]:
    if not isinstance(sound, Path):
        return np.zeros(round(sound * MICROPHONE_RATE))
    samples, rate = soundfile.read(sound)
    return 0.8 * soxr.resample(samples, rate, MICROPHONE_RATE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason=f"playwright {INSTALLED_BY}")
    with playwright.sync_playwright() as driver:
        browser = Browser(driver, program, tmp_path_factory.mktemp("microphone"))
        yield browser
        browser.close()

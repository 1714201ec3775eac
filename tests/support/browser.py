"""A real Chromium, driven by Playwright: what a page says, asks for and shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Opened:
    """A page in the browser.

    Arguments:
        page: Playwright's.
        errors: errors on its console, and those that no code caught.
        requests: every address that it asked for.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def drawn(self) -> None:
        """Wait until every figure has drawn what is chosen."""
        self.page.wait_for_function("document.documentElement.dataset.drawn")

    def choose(self, chooser: str, value: str) -> None:
        """Choose by the keyboard's means: the native select; wait for the figures."""
        self.page.select_option(f"#choose-{chooser}", value)
        self.drawn()

    def options(self, chooser: str) -> list[str]:
        script = "select => [...select.options].map(option => option.value)"
        return list(self.page.eval_on_selector(f"#choose-{chooser}", script))

    def marks(self, figure: str) -> str:
        """The drawing of a figure."""
        return str(self.page.inner_html(f"[data-chart={figure}]"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser; tests are skipped where none is found."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is found: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def opened(chromium: Any, file: Path, *, scheme: str = "light", width: int = 1200) -> Iterator[Opened]:
    """Open a page from disk, and wait until it has drawn."""
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    shown = Opened(context.new_page())
    shown.page.on("console", lambda message: shown.errors.append(message.text) if message.type != "log" else None)
    shown.page.on("pageerror", lambda error: shown.errors.append(str(error)))
    shown.page.on("request", lambda request: shown.requests.append(request.url))
    shown.page.goto(file.as_uri())
    shown.drawn()
    yield shown
    context.close()

"""The built site, served on localhost, and Debian's Chromium driven by playwright.

The site is ``$REALIGN_SITE`` (a folder with index.html) or book/_build/html; without one, or without a
Chromium, the tests skip and say so.
"""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from playwright.sync_api import Browser, Page

SITE = Path(os.environ.get("REALIGN_SITE") or Path(__file__).parents[2] / "book" / "_build" / "html")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def site() -> Path:
    if not (SITE / "intro.html").is_file():
        pytest.skip(f"no built site in {SITE}; run 'make book' first")
    return SITE


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="session")
def chromium(site: Path) -> Iterator[Browser]:
    with browser.chromium() as opened:
        yield opened


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    tab = chromium.new_page(viewport={"width": 1280, "height": 1600})
    yield tab
    tab.close()

"""The built site in a real browser: every page is whole, quiet, and asks no other host for anything.

The site is ``$REALIGN_SITE`` (a folder with index.html) or book/_build/html; without one, or without a
Chromium, these tests skip and say so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, chromium, executable, served

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("REALIGN_SITE") or ROOT / "book" / "_build" / "html")
PROSE = ["intro", "rerun", "methods", "appendix", "references"]
FIGURES = {
    "rq1_null_effect": 3,
    "rq2_backbone_geometry": 9,
    "rq3_realignment": 8,
    "rq4_mechanism": 3,
}
CLAIMS = {
    "rq1_null_effect": ["C1"],
    "rq2_backbone_geometry": ["C2", "C3", "C4", "C5"],
    "rq3_realignment": ["C6"],
    "rq4_mechanism": ["C7"],
}
PAGES = [f"{name}.html" for name in PROSE] + [f"chapters/{name}.html" for name in FIGURES]
VERDICT = r"(holds|does not hold|inconclusive|not tested here)"

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(
        not (SITE / "intro.html").is_file(), reason=f"no built site in {SITE}; run 'make book' first"
    ),
    pytest.mark.skipif(executable() is None, reason="no Chromium here (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(SITE) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as tab:
        yield tab


@pytest.mark.parametrize("page", PAGES)
def test_page_is_quiet_and_asks_no_other_host(browser: Browser, address: str, page: str) -> None:
    visit = browser.open(f"{address}/{page}")
    local = (address, "data:", "blob:")
    assert [url for url in visit.requests if not url.startswith(local)] == []
    assert visit.failed == []
    assert visit.console == []
    assert any(url.endswith(page) for url in visit.requests), "the recorder saw nothing"


@pytest.mark.parametrize("page", PAGES)
def test_every_image_is_loaded_and_every_formula_typeset(browser: Browser, address: str, page: str) -> None:
    browser.open(f"{address}/{page}")
    # Images below the fold load lazily: look at each.
    broken = browser.evaluate(
        """Promise.all([...document.images].map(async image => {
            image.loading = 'eager';
            try { await image.decode() } catch (error) { return image.src }
            return image.naturalWidth > 0 && image.naturalHeight > 0 ? null : image.src
        })).then(found => found.filter(Boolean))"""
    )
    assert broken == []
    raw, typeset = browser.evaluate(
        """[...document.querySelectorAll('.math')].length == 0 ? [0, 0] :
           MathJax.startup.promise.then(() => [
             document.querySelectorAll('mjx-merror').length, document.querySelectorAll('mjx-container').length])"""
    )
    assert raw == 0
    assert typeset > 0 or page != "methods.html"


@pytest.mark.parametrize("chapter", FIGURES)
def test_chapter_shows_its_figures_with_text_for_those_who_cannot_see(
    browser: Browser, address: str, chapter: str
) -> None:
    browser.open(f"{address}/chapters/{chapter}.html")
    alternatives = browser.evaluate("[...document.querySelectorAll('.cell_output img')].map(i => i.alt)")
    assert len(alternatives) >= FIGURES[chapter]
    assert all(len(text) > 15 and "svg" not in text for text in alternatives)


@pytest.mark.parametrize("chapter", FIGURES)
def test_chapter_ran_and_states_its_verdicts(browser: Browser, address: str, chapter: str) -> None:
    browser.open(f"{address}/chapters/{chapter}.html")
    text = browser.evaluate("document.querySelector('article').innerText")
    assert "Traceback" not in text
    outputs = browser.evaluate(
        "[...document.querySelectorAll('.cell_output')].map(o => o.innerText).join(' ')"
    )
    assert not re.search(r"\bnan\b|\binf\b", outputs, re.IGNORECASE)
    for claim in CLAIMS[chapter]:
        assert re.search(rf"{claim} \([^)]+\): {VERDICT}\.", text), f"no verdict on {claim}"


def test_home_page_has_a_verdict_on_every_claim_and_links_to_its_chapter(
    browser: Browser, address: str
) -> None:
    browser.open(f"{address}/intro.html")
    rows = browser.evaluate(
        """[...document.querySelectorAll('article table:first-of-type tbody tr')].map(
            row => [...row.cells].map(cell => cell.innerText.trim()))"""
    )
    verdicts = {row[0]: row[2] for row in rows if re.fullmatch(r"C\d", row[0])}
    assert sorted(verdicts) == [f"C{i}" for i in range(1, 8)]
    assert all(re.fullmatch(VERDICT, verdict) for verdict in verdicts.values())
    links = browser.evaluate("[...document.querySelectorAll('article table a')].map(a => a.pathname)")
    assert all((SITE / link.lstrip("/")).is_file() for link in links)
    assert {Path(link).stem for link in links} >= set(FIGURES)


def test_appendix_is_filled_in(browser: Browser, address: str) -> None:
    browser.open(f"{address}/appendix.html")
    text = browser.evaluate("document.querySelector('article').innerText")
    for expected in ("recipe.temperature", "torch", "compare", "C7"):
        assert expected in text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_keep_their_light_card_in_both_themes(browser: Browser, address: str, theme: str) -> None:
    browser.open(f"{address}/chapters/rq1_null_effect.html")
    browser.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    look = browser.evaluate(
        "[...document.querySelectorAll('.cell_output img')].map(i => getComputedStyle(i).filter)"
    )
    assert set(look) == {"none"}

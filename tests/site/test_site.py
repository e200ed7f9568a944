"""The built site in a real browser: every page is whole, quiet, and asks no other host for anything."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page

from realign import paths
from realign.book.chapters import CHAPTERS, Chapter
from realign.findings import claims

TOC = yaml.safe_load((paths.root() / "book" / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [f"{TOC['root']}.html"] + [
    f"{each['file']}.html"
    for part in TOC["parts"]
    for chapter in part["chapters"]
    for each in (chapter, *chapter.get("sections", []))
]
VERDICT = r"(holds|does not hold|inconclusive|not tested here)"
chapters = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)

pytestmark = pytest.mark.site


def test_no_file_of_the_site_names_a_place_of_this_machine(site: Path) -> None:
    kinds = (".html", ".ipynb", ".json", ".js", ".txt", ".md", ".svg", ".py")
    places = (str(paths.root()), str(paths.artifacts()), f"{Path.home()}/", f"{tempfile.gettempdir()}/")
    for file in (file for file in site.rglob("*") if file.suffix in kinds and "mathjax" not in file.parts):
        text = file.read_text(encoding="utf-8", errors="replace")
        assert [place for place in places if place in text] == [], file


@pytest.mark.parametrize("name", PAGES)
def test_page_is_quiet_and_asks_no_other_host(page: Page, address: str, name: str) -> None:
    requests: list[str] = []
    failed: list[str] = []
    console: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("requestfailed", lambda request: failed.append(f"{request.failure} {request.url}"))
    page.on("response", lambda r: failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.on("console", lambda m: console.append(m.text) if m.type in ("error", "assert") else None)
    page.on("pageerror", lambda error: console.append(str(error)))
    page.goto(f"{address}/{name}", wait_until="networkidle")
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert failed == []
    assert console == []
    assert any(url.endswith(name) for url in requests), "the recorder saw nothing"


@pytest.mark.parametrize("name", PAGES)
def test_every_image_is_loaded_and_every_formula_typeset(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}/{name}", wait_until="networkidle")
    # Images below the fold load lazily: look at each.
    broken = page.evaluate(
        """Promise.all([...document.images].map(async image => {
            image.loading = 'eager';
            try { await image.decode() } catch (error) { return image.src }
            return image.naturalWidth > 0 && image.naturalHeight > 0 ? null : image.src
        })).then(found => found.filter(Boolean))"""
    )
    assert broken == []
    raw, typeset = page.evaluate(
        """[...document.querySelectorAll('.math')].length == 0 ? [0, 0] :
           MathJax.startup.promise.then(() => [
             document.querySelectorAll('mjx-merror').length, document.querySelectorAll('mjx-container').length])"""
    )
    assert raw == 0
    assert typeset > 0 or name != "methods.html"


@chapters
def test_chapter_shows_its_figures_with_text_for_those_who_cannot_see(
    page: Page, address: str, chapter: Chapter
) -> None:
    page.goto(f"{address}/{chapter.page}.html")
    alternatives = page.evaluate("[...document.querySelectorAll('.cell_output img')].map(i => i.alt)")
    drawn = [cell for cell in chapter.notebook().cells if cell.source.startswith("figures.")]
    assert len(alternatives) >= len(drawn) >= 3
    assert all(len(text) > 15 and "svg" not in text for text in alternatives)


@chapters
def test_chapter_ran_and_states_its_verdicts(page: Page, address: str, chapter: Chapter) -> None:
    page.goto(f"{address}/{chapter.page}.html")
    text = page.inner_text("article")
    assert "Traceback" not in text
    outputs = page.evaluate("[...document.querySelectorAll('.cell_output')].map(o => o.innerText).join(' ')")
    assert not re.search(r"\bnan\b|\binf\b", outputs, re.IGNORECASE)
    for claim in chapter.claims:
        assert re.search(rf"{claim} \([^)]+\): {VERDICT}\.", text), f"no verdict on {claim}"


def test_home_page_has_the_verdict_of_each_chapter_and_links_to_it(
    page: Page, address: str, site: Path
) -> None:
    page.goto(f"{address}/intro.html")
    rows = page.evaluate(
        """[...document.querySelectorAll('article table:first-of-type tbody tr')].map(
            row => [...row.cells].map(cell => cell.innerText.trim()))"""
    )
    verdicts = {row[0]: row[2] for row in rows if re.fullmatch(r"C\d+", row[0])}
    assert sorted(verdicts) == sorted(claims.load())
    assert all(re.fullmatch(VERDICT, verdict) for verdict in verdicts.values())
    links = page.evaluate("[...document.querySelectorAll('article table a')].map(a => a.pathname)")
    assert all((site / link.lstrip("/")).is_file() for link in links)
    assert {Path(link).stem for link in links} >= {chapter.file for chapter in CHAPTERS}
    for chapter in CHAPTERS:
        page.goto(f"{address}/{chapter.page}.html")
        text = page.inner_text("article")
        for claim in chapter.claims:
            assert re.search(rf"{claim} \([^)]+\): {verdicts[claim]}\.", text), claim


def test_appendix_is_filled_in(page: Page, address: str) -> None:
    page.goto(f"{address}/appendix.html")
    text = page.inner_text("article")
    for expected in ("recipe.temperature", "torch", "compare", "C7"):
        assert expected in text


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", [f"{CHAPTERS[0].page}.html", "architecture.html", "methods.html"])
def test_figures_keep_their_light_card_in_both_themes(
    page: Page, address: str, theme: str, name: str
) -> None:
    page.goto(f"{address}/{name}")
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    look = page.evaluate(
        "[...document.querySelectorAll('.cell_output img, figure img')].map(i => getComputedStyle(i).filter)"
    )
    assert set(look) == {"none"}


@pytest.mark.parametrize(
    ("package", "name"),
    [("hrsa", "compare"), ("stats", "tost"), ("study", "open_study"), ("display", "show")],
)
def test_reference_shows_what_the_docstrings_say(page: Page, address: str, package: str, name: str) -> None:
    page.goto(f"{address}/api/{package}.html")
    names = page.evaluate("[...document.querySelectorAll('dt.sig .descname')].map(e => e.innerText)")
    assert name in names


def test_nothing_on_the_site_says_where_it_was_built(site: Path) -> None:
    homes = {str(paths.root()), str(Path.home())} - {"/", "/root"}
    files = [f for f in site.rglob("*") if f.suffix in (".html", ".ipynb", ".js", ".md", ".txt")]
    assert len(files) > 20
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert [home for home in homes if home in text] == [], file
        assert "site-packages" not in text, file


@chapters
def test_downloaded_notebook_has_its_outputs_and_its_parameters(site: Path, chapter: Chapter) -> None:
    notebook = json.loads((site / "_sources" / f"{chapter.page}.ipynb").read_text(encoding="utf-8"))
    assert set(notebook["metadata"]["papermill"]) == {"parameters"}
    assert any(cell.get("outputs") for cell in notebook["cells"])

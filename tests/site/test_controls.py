"""What a reader does to a page: open the menu on any device, move by keyboard, print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.site
WIDTHS = (390, 800, 1280)
CHAPTER = "chapters/rq2_backbone_geometry.html"
INSIDE = {"primary": ".bd-sidenav a:has-text('Methods')", "secondary": "#pst-page-toc-nav a"}


@pytest.fixture
def phone(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    yield context.new_page()
    context.close()


def button(page: Page, side: str):  # type: ignore[no-untyped-def]
    return page.locator(f".{side}-toggle:visible")


def act(page: Page, side: str, how: str) -> None:
    if how == "click":
        button(page, side).click()
    else:
        button(page, side).focus()
        page.keyboard.press("Enter")


@pytest.mark.parametrize("how", ["click", "Enter"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_menu_and_contents_open_and_close(page: Page, address: str, side: str, width: int, how: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{address}/{CHAPTER}")
    links = page.locator(INSIDE[side]).first
    before = links.is_visible()
    assert before == (width == 1280)
    if before and side == "secondary":  # the contents stand beside the text, without a button
        return
    expect(button(page, side)).to_have_count(1)
    assert button(page, side).get_attribute("aria-label")
    act(page, side, how)
    expect(links).to_be_visible(visible=not before)
    if before:
        act(page, side, how)
    else:
        page.keyboard.press("Escape")
    expect(links).to_be_visible(visible=before)


@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_a_phone_opens_the_menu_by_touch_and_follows_a_link(phone: Page, address: str, side: str) -> None:
    phone.goto(f"{address}/{CHAPTER}")
    button(phone, side).tap()
    link = phone.locator(INSIDE[side]).first
    expect(link).to_be_visible()
    link.tap()
    phone.wait_for_url("**/methods.html" if side == "primary" else "**#*")


def test_the_menu_of_a_wide_window_opens_on_a_narrow_one_too(page: Page, address: str) -> None:
    page.goto(f"{address}/{CHAPTER}")
    act(page, "primary", "click")
    page.set_viewport_size({"width": 390, "height": 900})
    act(page, "primary", "click")
    expect(page.locator(INSIDE["primary"]).first).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_buttons_show_where_the_keyboard_is(page: Page, address: str, theme: str) -> None:
    page.set_viewport_size({"width": 1000, "height": 900})
    page.goto(f"{address}/{CHAPTER}")
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    page.locator("#pst-skip-link a").focus()
    rings = {}
    for _ in range(200):
        page.keyboard.press("Tab")
        name, ring = page.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(e);
                return [e.closest('.bd-header-article') ? e.className : '', s.outlineStyle + ' ' + s.outlineWidth] }"""
        )
        if name:
            rings[name] = ring
    assert len(rings) >= 4, rings
    assert set(rings.values()) == {"solid 2px"}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", [CHAPTER, "chapters/rq1_null_effect.html", "appendix.html", "methods.html"])
def test_a_printed_page_is_dark_on_white_and_cuts_nothing(
    page: Page, address: str, name: str, theme: str
) -> None:
    page.set_viewport_size({"width": 700, "height": 990})  # A4 between its margins
    page.goto(f"{address}/{name}", wait_until="networkidle")
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    page.emulate_media(media="print")
    cut = page.evaluate(
        """[...document.querySelectorAll('article *')].filter(e => !e.closest('span.math, mjx-container, svg')
            && getComputedStyle(e).display != 'inline' && e.clientWidth > 0
            && (e.scrollWidth > e.clientWidth + 2 && getComputedStyle(e).overflowX != 'visible'
                || e.getBoundingClientRect().right > innerWidth + 1))
            .map(e => e.tagName + '.' + e.className).slice(0, 5)"""
    )
    assert cut == []
    dark = page.evaluate(
        """() => {
            const light = c => { const m = c.match(/[\\d.]+/g).map(Number);
                return m[3] === 0 ? null : (m[0] + m[1] + m[2]) / 3 };
            return [...document.querySelectorAll('body, article, article :is(p, td, th, pre, span, h1, h2, a, li)')]
                .filter(e => !e.closest('mjx-assistive-mml'))
                .map(e => [e, getComputedStyle(e)])
                .filter(([e, s]) => e.innerText && (light(s.color) > 150 || (light(s.backgroundColor) ?? 255) < 200))
                .map(([e, s]) => e.tagName + ' ' + e.className + ' ' + s.color + ' on ' + s.backgroundColor).slice(0, 5)
        }"""
    )
    assert dark == []


def test_printing_gives_a_document(page: Page, address: str, tmp_path: Path) -> None:
    page.goto(f"{address}/{CHAPTER}", wait_until="networkidle")
    page.pdf(path=tmp_path / "chapter.pdf", format="A4")
    assert (tmp_path / "chapter.pdf").stat().st_size > 50_000

"""The page in a real browser: upload, search, mark, search again, export; by day and by night, on a desk and on a phone."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dinogrl.embedding.calibration import in_per_cent
from dinogrl.embedding.embedder import Embedder
from dinogrl.embedding.search_aids import aids_of, store_aids
from dinogrl.gallery import Gallery
from dinogrl.models.archive import load_model
from dinogrl.web.service import Settings
from dinogrl.web.tokens import Tokens
from tiny_server import CAMERAS, STRANGE, listening, make_home, pictures

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
PICTURES = os.environ.get("DINOGRL_SCREENSHOTS")
"""A folder: every step is photographed there, to be looked at."""
TOKEN = "a-long-token-of-the-night-shift"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    with listening(home, Settings(home / "state")) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options, timeout=120_000)
        yield browser
        browser.close()


def opened(browser: Browser, address: str, *, width: int = 1280, dark: bool = False, touch: bool = False) -> Page:
    """The page, with everything that goes wrong in it noted in ``faults``."""
    context = browser.new_context(
        viewport={"width": width, "height": 860}, color_scheme="dark" if dark else "light", has_touch=touch, accept_downloads=True
    )
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page = context.new_page()
    page.faults = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.faults.append(str(error)))  # type: ignore[attr-defined]
    page.on("console", lambda said: page.faults.append(said.text) if said.type == "error" else None)  # type: ignore[attr-defined]
    page.on("request", lambda asked: asked.url.startswith((address, "blob:")) or page.faults.append(asked.url))  # type: ignore[attr-defined]
    page.goto(address)
    return page


def photograph(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def without(faults: list[str], *words: str) -> list[str]:
    """Browsers note every refusal as an error; those that were meant are left out."""
    return [fault for fault in faults if not any(word in fault for word in words)]


def expect_readable(page: Page) -> None:
    """Nothing makes the page scroll sideways, no letter is too small, what is touched is large enough."""
    found = page.evaluate("""() => {
      const seen = (kind) => [...document.querySelectorAll(kind)].filter((e) => e.offsetParent && e.textContent.trim());
      return {
        overflow: document.documentElement.scrollWidth - innerWidth,
        smallest: Math.min(...seen("main *, header *").map((e) => parseFloat(getComputedStyle(e).fontSize))),
        low: seen("button, select").filter((e) => e.offsetHeight < 34).map((e) => e.id || e.textContent),
      };
    }""")
    assert found["overflow"] <= 0 and found["smallest"] >= 11.5 and not found["low"], found


def files(count: int = 6) -> list[dict]:
    return [{"name": name, "mimeType": "image/jpeg", "buffer": content} for name, content in pictures(2, count)]


def test_the_search_button_is_in_sight_however_much_stands_above_it(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    page.set_input_files("#files", files())
    page.click("#send")
    expect(page.locator("#search")).to_be_enabled()
    page.locator("#ask summary", has_text="Conditions").click()
    page.evaluate("document.querySelector('#ask').scrollTop = 0")
    assert page.evaluate("document.querySelector('#ask').scrollHeight - document.querySelector('#ask').clientHeight") > 40
    button = page.locator("#search").bounding_box()
    assert button is not None and button["y"] + button["height"] <= 860
    photograph(page, "desk-light-conditions")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, True)], ids=["desk", "desk-dark", "phone"])
def test_upload_search_mark_export(browser: Browser, address: str, width: int, dark: bool, tmp_path: Path) -> None:
    page = opened(browser, address, width=width, dark=dark, touch=width < 500)
    name = f"{'phone' if width < 500 else 'desk'}-{'dark' if dark else 'light'}"
    expect(page.locator("#stock")).to_contain_text("18 tracklets of 3 cameras")
    photograph(page, f"{name}-1-empty")
    page.set_input_files("#files", files())
    expect(page.locator("#chosen")).to_contain_text("6 files")
    page.click("#send")
    expect(page.locator("#query-choice button[aria-pressed=true]")).to_contain_text("6 pictures, visible")
    page.fill("#case", "lost child 17")
    page.click("#search")
    expect(page.locator("#found")).to_contain_text("18 answers for walk1.jpg (visible)")
    expect(page.locator("#caution")).to_contain_text("Probability learned from made up, other footage than this, taking 50 % of")
    first = page.locator(".hit").first
    expect(first).to_contain_text("1. gate")
    expect(first).to_contain_text("person2/6")
    expect(first).to_contain_text(re.compile(r"same person (\d+|under 1|over 99) %"))
    expect(first).to_contain_text("2026-03-01 12:06:00–12:06:20 UTC")
    assert page.locator(".hit b", has_text=CAMERAS[2]).count() == 6, "names are text, whatever is in them"
    expect(page.locator(".hit", has_text=STRANGE)).to_have_count(1)
    for image in page.locator(".hit img").all()[:3]:
        expect(image).to_have_js_property("naturalWidth", 288)
    photograph(page, f"{name}-2-found")
    expect_readable(page)
    first.get_by_role("button", name="Right").click()
    page.locator(".hit").nth(2).get_by_role("button", name="Wrong").click()
    wrong = page.locator(".hit").nth(2).get_attribute("data-id")
    photograph(page, f"{name}-3-marked")
    page.click("#again")
    expect(page.locator("#caution")).to_contain_text("moved towards")
    expect(page.locator("#found")).to_contain_text("17 answers")
    assert wrong not in page.locator(".hit .id").all_inner_texts()
    expect(page.locator(".hit.right")).to_contain_text("person2/6")
    page.locator("#tools summary").click()
    page.fill("#note", "<script>alert(1)</script> seen at the gate")
    photograph(page, f"{name}-4-again")
    with page.expect_download() as got:
        page.click("#export-html")
    got.value.save_as(tmp_path / "case.html")
    with page.expect_download() as got:
        page.click("#export-zip")
    got.value.save_as(tmp_path / "case.zip")
    with zipfile.ZipFile(tmp_path / "case.zip") as case:
        facts = json.loads(case.read("case.json"))
        assert facts["marks"]["right"] == ["person2/6"] and facts["request"]["case"] == "lost child 17"
        assert {"case.html", "query.jpg", "001.jpg"} <= set(case.namelist())
    if width > 500:
        shown = browser.new_page(color_scheme="dark" if dark else "light")
        shown.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or page.faults.append(asked.url))  # type: ignore[attr-defined]
        shown.goto((tmp_path / "case.html").as_uri())
        expect(shown.locator("tbody tr .right")).to_have_text("right")
        expect(shown.locator("img").first).to_have_js_property("naturalWidth", 288)
        assert shown.locator("img").count() == 1 + 17 - 1 and shown.locator("script").count() == 0, "one has no picture"
        expect(shown.locator(".note")).to_contain_text("<script>alert(1)</script> seen at the gate")
        photograph(shown, f"{name}-5-case")
        shown.set_viewport_size({"width": 400, "height": 800})
        highest = shown.evaluate("Math.max(...[...document.querySelectorAll('tbody tr')].map(row => row.offsetHeight))")
        assert highest < 250, "on a phone a name is not set one letter a line"
        shown.close()
    # a picture that the gallery does not keep leaves a grey field
    assert without(page.faults, "404") == []  # type: ignore[attr-defined]
    page.context.close()


def test_by_keys_alone(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    expect(page.locator("#stock")).to_contain_text("18 tracklets")
    page.locator("input[value=upload]").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#shelf button").first).to_be_visible()
    page.locator("#shelf button").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#shelf button[aria-pressed=true]")).to_have_count(1)
    page.locator("#case").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".hit")).to_have_count(17)
    page.keyboard.press("Tab")
    for _ in range(20):
        if page.evaluate("document.activeElement.classList.contains('hit')"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("r")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("w")
    expect(page.locator(".hit").nth(0)).to_have_class(re.compile("right"))
    expect(page.locator(".hit").nth(1)).to_have_class(re.compile("wrong"))
    expect(page.locator("#again")).to_have_text("Search again with 1 right, 1 wrong")
    page.keyboard.press("u")
    expect(page.locator("#again")).to_have_text("Search again with 1 right, 0 wrong")
    photograph(page, "keys")
    # a picture that the gallery does not keep leaves a grey field
    assert without(page.faults, "404") == []  # type: ignore[attr-defined]
    page.context.close()


def test_a_video_and_what_is_refused(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    expect(page.locator("#stock")).to_contain_text("18 tracklets")
    page.set_input_files("#files", [{"name": "night.mp4", "mimeType": "video/mp4", "buffer": b"\0\0\0\x20ftypisom" + bytes(200)}])
    page.click("#send")
    expect(page.locator("#query-choice button")).to_have_count(2)
    expect(page.locator("#query-choice button[aria-pressed=true]")).to_contain_text("8 pictures")
    page.set_input_files("#files", [{"name": "walk.jpg", "mimeType": "image/jpeg", "buffer": b"PK\3\4 no picture"}])
    page.click("#send")
    expect(page.locator("#alert")).to_contain_text("walk.jpg is nothing that is taken, whatever its name says")
    photograph(page, "refused")
    assert without(page.faults, "415") == []  # type: ignore[attr-defined]
    page.reload()
    page.locator("#earlier summary").click()
    page.locator("#earlier-list button", has_text="night.mp4").first.click()
    expect(page.locator("#query-choice button")).to_have_count(2)
    page.context.close()


def test_a_gallery_of_nobody_and_a_model_without_calibration(browser: Browser, home: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("state", "lock")))
    model = home / "model.safetensors"
    aids = aids_of(load_model(model))
    assert aids is not None
    store_aids(model, replace(aids, calibration=None))
    with listening(home, Settings(tmp_path / "one")) as address:
        page = opened(browser, address)
        page.locator("input[value=gallery]").check()
        page.locator("#shelf button").first.click()
        page.click("#search")
        expect(page.locator("#caution")).to_contain_text("No probability: the model was not calibrated on enough people")
        expect(page.locator(".hit .chance")).to_have_count(0)
        page.context.close()
    with Gallery(home / "people.gallery", Embedder.load(model, "cpu"), writable=True) as gallery:
        gallery.remove(gallery.ids()[1:])
    with listening(home, Settings(tmp_path / "two")) as address:
        page = opened(browser, address)
        expect(page.locator("#stock")).to_have_text("1 tracklet of 1 camera")
        page.context.close()
    with Gallery(home / "people.gallery", writable=True) as gallery:
        gallery.remove(gallery.ids())
    with listening(home, Settings(tmp_path / "three")) as address:
        page = opened(browser, address)
        expect(page.locator("#empty")).to_contain_text("The gallery is empty")
        page.set_input_files("#files", files())
        page.click("#send")
        page.locator("#query-choice button").first.wait_for()
        page.click("#search")
        expect(page.locator("#found")).to_contain_text("0 answers")
        expect(page.locator("#empty")).to_contain_text("The gallery is empty")
        photograph(page, "empty")
        assert page.faults == []  # type: ignore[attr-defined]
        page.context.close()


def test_the_page_says_percentages_as_the_terminal_does(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    chances = [i / 1000 for i in range(1001)]
    said = page.evaluate("async (p) => { const { perCent } = await import('/static/dom.js'); return p.map(perCent); }", chances)
    assert said == [in_per_cent(chance) for chance in chances]
    page.context.close()


def test_signing_in(browser: Browser, home: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("state", "lock")))
    with listening(home, Settings(tmp_path / "state", Tokens({"night": TOKEN}))) as address:
        page = opened(browser, address)
        expect(page.locator("#sign-in")).to_be_visible()
        expect(page.locator("#work")).to_be_hidden()
        photograph(page, "sign-in")
        page.fill("#token", "wrong token")
        page.keyboard.press("Enter")
        expect(page.locator("#alert")).to_have_text("this token is nobody's")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#stock")).to_contain_text("signed in as night")
        assert page.evaluate("document.cookie") == "", "no script can read the session"
        page.click("#sign-out")
        expect(page.locator("#sign-in")).to_be_visible()
        assert without(page.faults, "401") == []  # type: ignore[attr-defined]
        page.context.close()

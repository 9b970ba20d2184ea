"""The report's page in a real browser, headless: errors, sorting, configs, widths, colours.

Needs Debian's chromium and chromium-driver (tests/integration/browser.sh --install). Without them the tests
are skipped, and fail where CI=true.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image
from reference.report_runs import hostile, study

from ssod.study.report.tables import make_report
from ssod.study.report.write import write_report

WIDTHS = (400, 1600)
SCHEMES = ("light", "dark")
READABLE = 4.5  # WCAG 2.2, success criterion 1.4.3: contrast of text
VISIBLE = 3.0  # ... and 1.4.11: of lines that must be told from their background
# What is read, by its selector; every one of them is on the page.
TEXTS = (
    "body",
    "h1",
    "h2",
    ".facts",
    ".note",
    "nav a",
    "#results-1 tbody td.number",
    "#results-1 tbody th",
    "#results-1 thead button",
    "#results-1 .spread",
    "#results-1 .about",
    "#results-1 .none",
    "#between-1 tbody td.number",
    "#between-1 tbody b .about",
    "#runs-table tbody td",
    "#difference tbody td",
    "#difference .none",
    "caption",
    "figcaption span",
    ".legend li",
    "dd",
    "select",
    "#theme",
    "footer p",
    ".chart .tick",
)
CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (rgb) => {
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = rgb.map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = channels(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour.slice(0, 3);
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll(arguments[0])].map((element) => {
  const style = getComputedStyle(element);
  const ink = element.closest("svg") && element.matches("text") ? style.fill : style.color;
  const [a, b] = [light(channels(ink).slice(0, 3)), light(ground(element.closest("svg") ?? element))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
});
"""

BEYOND = """
return [...document.querySelectorAll("body *")]
  .filter((each) => !each.closest(".scroll, .skip, svg"))
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
  .map((each) => each.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report on two sections of data, one of them with hostile names."""
    folder = tmp_path_factory.mktemp("report")
    study(folder / "study", root="data/other")
    hostile(folder / "hostile")
    report = make_report([folder / "study", folder / "hostile"], title="A report & <more>")
    (written,) = write_report(report, folder / "out", ["html"])
    return written.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium with its driver, neither of which asks the network for anything."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("no chromium or chromedriver: tests/integration/browser.sh --install")
    os.environ["SE_OFFLINE"] = "true"
    os.environ["SE_AVOID_STATS"] = "true"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    for word in (
        "--headless=new",
        "--no-sandbox",  # root has none
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, page: str) -> Callable[..., Any]:
    """Function: the page, fresh, at a width and in a colour scheme."""

    def load(width: int = 1600, scheme: str = "light") -> Any:
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        media = {"features": [{"name": name, "value": value} for name, value in features.items()]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page)
        browser.execute_script("localStorage.clear()")
        browser.refresh()
        return browser

    return load


def texts(browser: Any, selector: str) -> list[str]:
    """The texts of all elements of a selector."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)", selector
    )
    return found


def test_there_are_no_errors_and_nothing_is_fetched(opened: Callable[..., Any]) -> None:
    browser = opened()
    assert browser.get_log("browser") == []
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map((each) => each.name)"
        ".filter((name) => !name.startsWith('data:'))"
    )
    assert fetched == []
    assert browser.title == "A report & <more>"


def test_a_click_sorts_and_says_so(opened: Callable[..., Any]) -> None:
    browser = opened()
    header = "#results-1 th[data-column='2']"
    button = browser.find_element("css selector", f"{header} button")
    cells = "#results-1 tbody td:nth-child(3)"
    before = texts(browser, cells)
    for order in ("descending", "ascending"):
        button.click()
        after = texts(browser, cells)
        values = [float(each.split()[0]) for each in after if each != "–"]
        assert values == sorted(values, reverse=order == "descending")
        assert after[-1] == "–"  # STAC has no teacher: last, whichever way
        assert browser.find_element("css selector", header).get_attribute("aria-sort") == order
    assert sorted(after) == sorted(before) and after != before
    browser.find_element("css selector", "#results-1 th[data-column='0'] button").click()
    names = texts(browser, "#results-1 tbody th")
    assert names == sorted(names, key=str.lower)
    assert len(browser.find_elements("css selector", "#results-1 [aria-sort]")) == 1


def test_the_keyboard_sorts(opened: Callable[..., Any]) -> None:
    browser = opened()
    button = browser.find_element("css selector", "#runs-table th[data-column='4'] button")
    browser.execute_script("arguments[0].focus()", button)
    button.send_keys(" ")
    values = [float(each) for each in texts(browser, "#runs-table tbody td:nth-child(5)") if each != "–"]
    assert len(values) > 10 and values == sorted(values, reverse=True)
    assert "teacher AP" in texts(browser, "#announce")[0]


def choose(browser: Any, which: str, name: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", which)).select_by_visible_text(name)


def test_two_configs_are_compared(opened: Callable[..., Any]) -> None:
    browser = opened()
    choose(browser, "first", "study/supervised_0")
    choose(browser, "second", "study/FixMatch_1")
    rows = [each.split("|") for each in texts_of_rows(browser)]
    assert rows == [
        ["model.method", "None", "not set"],
        ["model.method.type", "not set", "FixMatch"],
        ["model.method.unsup_weight", "not set", "2.0"],
        ["randomness.seed", "0", "1"],
    ]
    browser.find_element("id", "filter").send_keys("SEED")
    assert texts_of_rows(browser) == ["randomness.seed|0|1"]
    browser.find_element("id", "filter").clear()
    choose(browser, "second", "study/supervised_0")
    assert "All options" in texts(browser, "#difference-caption")[0] and len(texts_of_rows(browser)) > 10


def texts_of_rows(browser: Any) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#difference tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent).join('|'))"
    )
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_readable(opened: Callable[..., Any], width: int, scheme: str) -> None:
    """No sideways scrolling of the page, enough contrast in all text, and a picture that shows something."""
    browser = opened(width, scheme)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    assert browser.execute_script(BEYOND) == []
    choose(browser, "first", "study/supervised_0")
    for selector in TEXTS:
        found = browser.execute_script(CONTRAST, selector)
        assert found and min(found) >= READABLE, f"{selector}: {min(found, default=0):.2f}"
    lines = browser.execute_script(CONTRAST, ".legend .line")
    assert len(lines) >= 6 and min(lines) >= VISIBLE, lines
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("L")
    assert width - 20 <= image.width <= width and len(image.getcolors() or []) > 20
    corner = image.getpixel((1, 1))
    assert (corner > 240) if scheme == "light" else (corner < 40)


def test_wide_tables_scroll_in_their_box(opened: Callable[..., Any]) -> None:
    browser = opened(400)
    inner, outer = browser.execute_script(
        "const box = document.querySelector('.scroll:has(#results-1)');"
        "box.scrollLeft = 9999;"
        "return [box.scrollLeft, document.querySelector('#results-1 tbody th').getBoundingClientRect().left]"
    )
    assert inner > 100 and outer >= 0  # the method stays in sight


def test_the_button_turns_the_colours_and_stays(opened: Callable[..., Any]) -> None:
    browser = opened(scheme="dark")
    button = browser.find_element("id", "theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(colour) == "rgb(253, 253, 251)"
    assert browser.find_element("id", "theme").get_attribute("aria-pressed") == "false"


def test_values_show_under_the_pointer(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser = opened()
    chart = browser.find_element("css selector", "#section-1 .chart")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    ActionChains(browser).move_to_element_with_offset(chart, chart.size["width"] // 2 - 12, 0).perform()
    tip = browser.find_element("id", "tip")
    assert tip.is_displayed() and tip.text.startswith("iteration 1,800") and "teacher" in tip.text


def test_a_picture_opens_and_closes(opened: Callable[..., Any]) -> None:
    browser = opened()
    button = browser.find_element("css selector", ".zoom")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    dialog = browser.find_element("id", "picture")
    assert dialog.get_attribute("open") is not None
    dialog.find_element("css selector", "button").click()
    assert dialog.get_attribute("open") is None
    assert browser.get_log("browser") == []

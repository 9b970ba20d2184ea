"""The page's structure: one well-formed file, headings, tables and labels, nothing from a file as markup."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from reference.report_runs import hostile, result, study, write_run

from ssod.study.report.elements import data, text
from ssod.study.report.page import write
from ssod.study.report.tables import make_report

VOID = {"meta", "link", "br", "img", "input", "wbr", "hr"}
SVG = {"line", "circle", "polyline"}


class Page(HTMLParser):
    """The elements in order, as (name, attributes); fails where one is closed that is not open."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SVG
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, content: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(content)

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name in names]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("study")
    hostile(folder / "hostile")
    study(folder / "study", seeds=2, root="data/other")
    return write(make_report([folder], title="A & <b>"))


@pytest.fixture(scope="module")
def page(content: str) -> Page:
    return Page(content)


def test_nothing_is_loaded_from_anywhere(content: str, page: Page) -> None:
    """No address but data URIs and places on the page; no url() or @import in the style."""
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            if name in attributes:
                assert re.match(r"data:|#", attributes[name] or ""), attributes
    style = content[content.index("<style>") : content.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"https?://", content)
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|eval|innerHTML|document\.write)\b", content)


def test_headings_go_down_step_by_step(page: Page) -> None:
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_names_of_places_are_unique_and_links_lead_to_them(page: Page) -> None:
    places = Counter(each["id"] for _, each in page.elements if "id" in each)
    assert max(places.values()) == 1
    pointed = [each["href"][1:] for each in page.all("a")]  # type: ignore[index]
    pointed += [each[name] for _, each in page.elements for name in ("aria-labelledby",) if name in each]
    assert set(pointed) <= places.keys()


def test_tables_have_captions_and_every_header_a_scope(page: Page) -> None:
    assert len(page.all("caption")) == len(page.all("table")) >= 5
    assert all(each.get("scope") in ("col", "row", "colgroup") for each in page.all("th"))


def test_every_row_has_as_many_cells_as_its_table(content: str) -> None:
    for table in re.findall(r"<table class=\"sortable.*?</table>", content, flags=re.S):
        head = re.findall(r"<tr.*?</tr>", table[: table.index("<tbody>")], flags=re.S)
        spans = [sum(int(n) for n in re.findall(r'colspan="(\d+)"', row)) for row in head]
        cells = [len(re.findall(r"<t[hd][ >]", row)) for row in head]
        spanned = [len(re.findall("colspan", row)) for row in head]
        widths = {count - more + wide for count, more, wide in zip(cells, spanned, spans, strict=True)}
        body = re.findall(r"<tr>(.*?)</tr>", table[table.index("<tbody>") :], flags=re.S)
        widths |= {len(re.findall(r"<t[hd][ >]", row)) for row in body}
        assert len(widths) == 1, table[:300]


def test_pictures_and_charts_say_what_they_show(page: Page) -> None:
    assert all(each.get("alt") for each in page.all("img") if each.get("src"))
    charts = [each for each in page.all("svg") if each.get("class") == "chart"]
    assert len(charts) == 10 and all(each["role"] == "img" and each["aria-label"] for each in charts)
    assert any("Soft Teacher: supervised twin ends at" in str(each["aria-label"]) for each in charts)
    assert any("recall at IoU 0.5" in str(each["aria-label"]) for each in charts)


def test_names_from_files_are_text(content: str, page: Page) -> None:
    """Folders, axes, errors and the title of the hostile study hold tags."""
    assert len(page.all("script")) == 2 and not page.all("i", "x")
    assert "hostile/<script>alert(1)</script>" in page.texts and "A & <b>" in page.texts
    assert any("<i>_50%|$x$" in each for each in page.texts)
    assert any("<img src=x>" in each for each in page.texts)
    assert not [each for each in page.all("img") if each.get("src") == "x"]
    assert "<script>alert" not in content


def test_options_are_all_there_once(content: str) -> None:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', content, flags=re.S)
    assert block is not None
    configs = json.loads(block[1])
    run = next(each for each in configs["runs"] if each["name"].endswith("<script>alert(1)</script>"))
    options = dict(configs["options"][place] for place in run["has"])
    assert options["model.method.type"] == "FixMatch" and options["train_cfg.max_iters"] == "1800"
    assert options["val_dataloader.dataset.pipeline.0.type"] == "LoadImage"
    assert len({tuple(each) for each in configs["options"]}) == len(configs["options"])


def test_json_in_the_page_ends_no_script() -> None:
    value = {"</script><!--": "\u2028&"}
    assert "<" not in data(value) and "&" not in data(value) and json.loads(data(value)) == value
    assert text('<a b="c">') == "&lt;a b=&quot;c&quot;&gt;"


def test_quality_is_shown_only_where_it_was_measured(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"kind": "val", "iteration": 5, "teacher/bbox_mAP": 0.4},
        {"kind": "pseudo_labels", "iteration": 5, "precision_50": 0.5, "recall_50": None},
    ]
    for count, name in ((1, "without"), (2, "with")):
        record = result("FixMatch", 0, {"teacher": [40, 60, 40]})
        write_run(tmp_path / name / "run", record, records=lines[:count])
    without, having = (write(make_report([tmp_path / name])) for name in ("without", "with"))
    assert (
        "Learning curves" in without
        and "supervised twin</li>" not in without
        and "Pseudo labels over time" not in without
    )
    assert "precision at IoU 0.5" in having and "recall at IoU 0.5" not in having


def test_a_run_without_anything_but_its_result_makes_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", result("FixMatch", 0, {"teacher": [40, 60, 40]}))
    (folder / "config.py").unlink()
    page = Page(write(make_report([folder])))
    assert "unknown data, 50 labeled images" in page.texts and "Learning curves" not in page.texts

"""The documentation's site: built strictly, without torch or a network, and every link of it followed."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from reference.modules import load

ROOT = Path(__file__).parents[1]
HOOKS = ROOT / "docs/hooks/site.py"
# MkDocs in a Python that can neither import what the package needs nor reach another machine.
BUILD = """
import socket, sys
for name in ("torch", "torchvision", "mmdet", "mmengine", "mmcv", "numpy"):
    sys.modules[name] = None
def refuse(*_):
    raise OSError("the site asked for a network")
socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--site-dir", sys.argv[1]])
"""
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
SHAPE = ("h1", "h2", "h3", "ul", "ol", "li", "pre", "table", "tr", "th", "td", "img")


class Page(HTMLParser):
    """What a page holds: ids, references (tag, attribute, value), and its article's text and tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.references: list[tuple[str, str, str]] = []
        self.classes: set[str] = set()
        self.tags: Counter[str] = Counter()
        self.script = self.text = ""
        self.inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("article", "script", "style"):
            self.inside.append(tag)
        self.tags[tag] += "article" in self.inside
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.ids.add(value)
            if name in ("href", "src") and value is not None:
                self.references.append((tag, name, value))
            if name == "class" and value:
                self.classes.update(value.split())

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if self.inside[-1:] == ["script"]:
            self.script += data
        elif "article" in self.inside:
            self.text += data


def pages_of(site: Path) -> dict[str, Page]:
    """{place in the site: page} of all HTML files."""
    files = sorted(site.rglob("*.html"))
    return {file.relative_to(site).as_posix(): Page(file.read_text(encoding="utf-8")) for file in files}


def reports(docs: Path) -> set[str]:
    """The places of reports that tools/report.py wrote: pages of their own, copied as they are."""
    return {path.relative_to(docs).as_posix() for path in docs.glob("report/*/report.html")}


def broken(site: Path, pages: dict[str, Page]) -> Iterator[str]:
    """References within the site that lead to no file, or to no anchor of a page."""
    for place, page in pages.items():
        for tag, _, value in page.references:
            address = urlsplit(value)
            if address.scheme or address.netloc:
                continue
            base = site if address.path.startswith("/") else (site / place).parent
            file = (base / unquote(address.path).lstrip("/")).resolve() if address.path else site / place
            file = file / "index.html" if file.is_dir() else file
            target = file.relative_to(site).as_posix() if file.is_relative_to(site) else ""
            if not target or not file.is_file():
                yield f"{place}: <{tag}> to {value}: no such file"
            elif address.fragment and target in pages and unquote(address.fragment) not in pages[target].ids:
                yield f"{place}: <{tag}> to {value}: no such anchor"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    missing = [name for name in ("mkdocs", "material", "mkdocstrings") if not importlib.util.find_spec(name)]
    if missing:
        reason = f'{", ".join(missing)} not installed: pip install -e ".[docs]"'
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("site").resolve()
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "SSOD_SOURCE_URL": ""}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """The site's pages."""
    return pages_of(site)


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks/site.py."""
    hooks: ModuleType = load(HOOKS)
    return hooks


# ---------------------------------------------------------------- pages and links


def test_the_results_lead_to_every_report(pages: dict[str, Page]) -> None:
    linked = {value for tag, _, value in pages["results.html"].references if tag == "a"}
    assert reports(ROOT / "docs") <= linked and reports(ROOT / "docs") <= set(pages)


def test_every_page_is_built_and_in_the_navigation(pages: dict[str, Page]) -> None:
    docs = ROOT / "docs"
    written = set(docs.glob("**/*.md")) - set(docs.glob("report/*/report.md"))
    expected = {path.relative_to(docs).with_suffix(".html").as_posix() for path in written}
    assert set(pages) - {"404.html", *reports(docs)} == expected
    linked = {unquote(urlsplit(value).path) for tag, _, value in pages["index.html"].references if tag == "a"}
    assert expected - linked == set()


def test_every_link_and_anchor_resolves(site: Path, pages: dict[str, Page]) -> None:
    assert sum(len(page.references) for page in pages.values()) > 1000
    assert list(broken(site, pages)) == []


def test_the_search_for_broken_links_finds_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b.html").write_text('<p id="here"><a href="#here"></a><a href="https://example.org/x">')
    links = ("../b.html", "../b.html#here", "/b.html", "../b.html#gone", "../c.html", "../../b.html", "#no")
    (tmp_path / "a/index.html").write_text("".join(f'<a href="{link}">' for link in links))
    found = [line.split(" to ")[1] for line in broken(tmp_path, pages_of(tmp_path))]
    assert found == [
        "../b.html#gone: no such anchor",
        "../c.html: no such file",
        "../../b.html: no such file",
        "#no: no such anchor",
    ]


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    """Scripts, styles, fonts and pictures are the site's own; nothing makes the theme fetch more."""
    outside = re.compile(r"\s*(?!data:)([a-z]+:|//)", re.IGNORECASE)
    fetched = re.compile(r"url\(\s*(['\"]?)(?!['\"]|data:|#)(.*?)\1\s*\)", re.IGNORECASE)
    for place, page in pages.items():
        loaded = [value for tag, name, value in page.references if (tag, name) in LOADED]
        assert loaded and [value for value in loaded if outside.match(value)] == [], place
        assert "://" not in page.script, place
        assert not page.classes & {"mermaid", "md-source"}, (
            f"{place}: unpkg.com or api.github.com would be asked"
        )
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert "@import" not in text, style
        assert [found[2] for found in fetched.finditer(text) if outside.match(found[2])] == [], style


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in ROOT.glob("docs/*.md") if path.stem != "changelog")
)
def test_a_page_has_the_shape_that_commonmark_gives_it(name: str, pages: dict[str, Page]) -> None:
    """MkDocs' Markdown wants four spaces and empty lines where others don't, or lists become paragraphs."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    expected = Page(f"<article>{markdown.render((ROOT / f'docs/{name}.md').read_text(encoding='utf-8'))}")
    got = pages[f"{name}.html"]
    assert {tag: got.tags[tag] for tag in SHAPE} == {tag: expected.tags[tag] for tag in SHAPE}


def test_the_start_page_begins_as_the_readme_does() -> None:
    command = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1].splitlines()[1]
    assert command in (ROOT / "docs/index.md").read_text(encoding="utf-8").split("```")[1].splitlines()


# ---------------------------------------------------------------- the API


def bare(text: str) -> str:
    """Letters and digits alone: what Markdown leaves of a sentence."""
    return re.sub(r"[\W_]+", "", text)


@cache
def public(module: Path) -> dict[str, str]:
    """{name: first line of the docstring} of a module's public classes and functions."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    lines = {node.name: (ast.get_docstring(node) or "").partition("\n")[0] for node in found}
    return {name: line for name, line in lines.items() if not name.startswith("_") and line}


def test_the_api_says_what_a_function_returns(pages: dict[str, Page]) -> None:
    core = pages["api/core.html"]
    assert "ssod.core.geometry.project_boxes" in core.ids
    assert "the hull of the four mapped corners, clipped to the target view" in core.text
    assert "depth = h[..., 2, 0] * x" in core.text  # core, models and methods show their source, too


@pytest.mark.parametrize("floor", ["core", "models", "data", "methods", "engine", "study"])
def test_the_api_holds_all_that_is_public(floor: str, pages: dict[str, Page]) -> None:
    page = pages[f"api/{floor}.html"]
    text, missing, count = bare(page.text), [], 0
    for module in sorted((ROOT / "ssod" / floor).rglob("*.py")):
        if module.stem == "__init__":
            continue
        for name, line in public(module).items():
            full = ".".join((*module.relative_to(ROOT).with_suffix("").parts, name))
            count += 1
            if full not in page.ids or bare(line) not in text:
                missing.append(full)
    assert count >= 9 and missing == []


def test_cited_places_lead_to_the_api(pages: dict[str, Page], hooks: ModuleType) -> None:
    """Each `file:line name` of docs/papers.md is a link to that very function or class."""
    cited = list(hooks.CITATION.finditer((ROOT / "docs/papers.md").read_text(encoding="utf-8")))
    linked = Counter(urlsplit(value).fragment for _, _, value in pages["papers.html"].references)
    wanted: Counter[str] = Counter()
    for place in cited:
        name = hooks.qualified(place["path"])[int(place["line"]), place["name"]]
        wanted[f"{place['path'].removesuffix('.py').replace('/', '.')}.{name}"] += 1
    assert len(cited) > 80
    assert {name: linked[name] for name in wanted} == dict(wanted)


# ---------------------------------------------------------------- hooks


def test_links_out_of_the_pages(hooks: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """They lead to the repository where its address is known, else they are the path; code stays."""

    def shown(markdown: str, source: str = "", page: str = "datasets.md") -> str:
        there: Any = type("Page", (), {"file": type("File", (), {"src_uri": page}), "meta": {}})
        config: Any = type("Config", (), {"extra": {"source_url": source}})
        return hooks.on_page_markdown(markdown, page=there, config=config, files=None)

    assert shown("([data/README.md](../data/README.md))") == "(`data/README.md`)"
    assert shown("[`train.py`](../tools/train.py)") == "`tools/train.py`"
    assert shown("[the README](../README.md#why)") == "the README (`README.md`)"
    assert (
        shown("[the README](../README.md#why)", "https://a.b/c/")
        == "[the README](https://a.b/c/README.md#why)"
    )
    assert shown("[news](../CHANGELOG.md)") == "[news](changelog.md)"
    assert shown("[news](../../CHANGELOG.md)", page="api/index.md") == "[news](../changelog.md)"
    for same in (
        "[x](views.md)",
        "`[x](../README.md)`",
        "```\n[x](../README.md)\n```",
        "[x](../docs/views.md)",
    ):
        assert shown(same) == same
    assert not caplog.messages
    shown("[x](../gone.py)")
    assert caplog.messages == ["docs/datasets.md links to gone.py, which is not there"]


def test_a_list_may_follow_its_sentence(hooks: ModuleType) -> None:
    text = "Three:\n- a\n  b\n- c\n\n```\nx\n- y\n```\n\n- d\nlazy\n- e"
    assert hooks.spaced_lists(text) == text.replace("Three:\n", "Three:\n\n")


# ---------------------------------------------------------------- packaging


def test_tests_bring_the_site_and_the_package_does_not() -> None:
    import configparser

    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = settings["options.extras_require"]
    assert "%(docs)s" in extras["test"].split()
    assert all("<" in line or line.startswith("ruff") for line in extras["docs"].split("\n") if line)
    find = pytest.importorskip("setuptools").find_packages
    found = find(str(ROOT), include=settings["options.packages.find"]["include"].split())
    assert found and {name.split(".")[0] for name in found} == {"ssod"}

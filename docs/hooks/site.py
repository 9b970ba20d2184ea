"""What MkDocs can't do by itself: links that leave docs/, cited places of the code, floors of the API."""

from __future__ import annotations

import ast
import logging
import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOG = logging.getLogger("mkdocs.hooks.site")  # MkDocs counts its warnings: --strict fails
# A link to what lies above docs/; or code, which is passed over: a fenced block, or words between backticks.
LINK = re.compile(
    r"\[(?P<text>[^\]\[]+)\]\((?P<path>\.\./[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
    r"|^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)",
    re.MULTILINE | re.DOTALL,
)
CITATION = re.compile(r"`(?P<path>ssod/[\w/]+\.py):(?P<line>\d+) (?P<name>\w+)`")
REST = re.compile(r"^<!-- every other module of (?P<package>ssod[\w.]*) -->$", re.MULTILINE)
SHOWN = re.compile(r"^::: (?P<module>[\w.]+)", re.MULTILINE)
PAGES = {"CHANGELOG.md": "changelog.md"}  # files above docs/ that are pages of the site


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A page's text with its outward links, citations and lists of modules as MkDocs can take them."""
    markdown = REST.sub(lambda found: rest(found["package"], markdown), markdown)
    if page.meta.get("show_source"):
        markdown = SHOWN.sub(lambda found: f"{found[0]}\n    options: {{show_source: true}}", markdown)
    if page.file.src_uri == "papers.md":
        markdown = CITATION.sub(cited, markdown)
    markdown = spaced_lists(markdown)
    source = config.extra["source_url"]
    return LINK.sub(lambda at: outward(at, page.file.src_uri, source) if at["path"] else at[0], markdown)


def spaced_lists(markdown: str) -> str:
    """The text with an empty line where a bullet list follows a paragraph at once: CommonMark needs none."""
    lines: list[str] = []
    fenced = in_list = False
    for line in markdown.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        bullet = line.startswith(("- ", "* ")) and not fenced
        if bullet and not in_list and lines and lines[-1].strip():
            lines.append("")
        in_list = bullet or (in_list and bool(line.strip()))
        lines.append(line)
    return "\n".join(lines)


def outward(link: re.Match[str], page: str, source: str) -> str:
    """A link to a file above docs/: to the repository where `source` is its address, else its path."""
    parts: list[str] = []
    for part in (PurePosixPath("docs") / PurePosixPath(page).parent / link["path"]).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    path, text, anchor = "/".join(parts), link["text"], link["anchor"] or ""
    if parts[:1] == ["docs"]:
        return link[0]  # it came back
    if not (ROOT / path).exists():
        LOG.warning("docs/%s links to %s, which is not there", page, path)
    if path in PAGES:
        return f"[{text}]({'../' * page.count('/')}{PAGES[path]}{anchor})"
    if source:
        return f"[{text}]({source.rstrip('/')}/{path}{anchor})"
    return f"`{path}`" if text.strip("`") in (path, Path(path).name) else f"{text} (`{path}`)"


def cited(place: re.Match[str]) -> str:
    """`file:line name` as a link to that name in the API, where the API has it."""
    module = place["path"].removesuffix(".py").replace("/", ".")
    name = qualified(place["path"]).get((int(place["line"]), place["name"]), place["name"])
    return f'<autoref optional identifier="{module}.{name}"><code>{place[0].strip("`")}</code></autoref>'


@cache
def qualified(path: str) -> dict[tuple[int, str], str]:
    """{(line, name): name with its class} of the functions and classes of a file."""
    names: dict[tuple[int, str], str] = {}

    def visit(node: ast.AST, outer: str) -> None:
        for each in ast.iter_child_nodes(node):
            if isinstance(each, ast.ClassDef | ast.FunctionDef):
                names[each.lineno, each.name] = outer + each.name
                visit(each, f"{outer}{each.name}.")

    visit(ast.parse((ROOT / path).read_text(encoding="utf-8")), "")
    return names


def rest(package: str, markdown: str) -> str:
    """`::: module` for each module of a package with something public that the page does not show yet."""
    shown = {found["module"] for found in SHOWN.finditer(markdown)}
    folder = ROOT / package.replace(".", "/")
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(folder.rglob("*.py"))
    }
    return "\n\n".join(
        f"::: {name}" for name, path in modules.items() if name not in shown and has_public(path)
    )


def has_public(path: Path) -> bool:
    """Whether a file is a module, not a package's own, and defines a public class or function."""
    if path.stem.startswith("_"):
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.ClassDef | ast.FunctionDef
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in tree.body)

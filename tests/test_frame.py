"""What stands outside the package agrees with it: commands, versions, changelog, the places papers.md cites.

`python tests/test_frame.py` writes the line numbers in docs/papers.md anew.
"""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAPERS = ROOT / "docs/papers.md"
COMMANDS = [
    "pip install -e .",
    "python tools/train.py configs/soft_teacher/shapes.py",
    'pip install -e ".[test]"',
    "pytest",
]
VERBS = ("setup", "format", "lint", "type", "test", "test-all", "docs", "demo", "bench")
CITATION = re.compile(r"`(?P<path>[\w/.]+\.py):(?P<line>\d+) (?P<name>\w+)`")
PATH = re.compile(r"\b(?:configs|tools|docs|ssod|tests|data)/[\w/.-]+\.(?:py|md|jpg|png|cfg)\b")


def read(name: str) -> str:
    """The text of a file of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def defined(path: str, name: str) -> list[int]:
    """The lines of a file on which a function or class of that name begins."""
    begins = re.compile(rf"\s*(?:def|class) {name}\b")
    return [number for number, line in enumerate(read(path).splitlines(), 1) if begins.match(line)]


def nearest(path: str, line: int, name: str) -> int:
    """The line nearest to `line` on which the name is defined; `line` itself where it is nowhere."""
    return min(defined(path, name), key=lambda each: abs(each - line), default=line)


def citations() -> list[tuple[str, int, str]]:
    """Every `file:line name` of docs/papers.md."""
    found = CITATION.finditer(PAPERS.read_text(encoding="utf-8"))
    return [(each["path"], int(each["line"]), each["name"]) for each in found]


# ---------------------------------------------------------------- commands


def test_the_first_block_of_the_readme_holds_the_two_commands() -> None:
    block = read("README.md").split("```")[1].splitlines()[1:]
    assert block == [f"{COMMANDS[0]} && {COMMANDS[1]}", f"{COMMANDS[2]} && {COMMANDS[3]}"]


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = ROOT / ".ci/run"
    done = subprocess.run(["bash", str(script), "--commands"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == COMMANDS
    runs = script.read_text(encoding="utf-8")
    for variable in ("install", "train", "install_test", "test"):
        assert re.search(rf'^eval "\${variable}\b', runs, re.MULTILINE), f".ci/run drops its {variable}"


def test_ci_can_be_executed_and_ends_with_pytest() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111, ".ci/run: chmod +x"
    last = script.read_text(encoding="utf-8").splitlines()[-1]
    assert last.startswith('eval "$test') and "-m ''" in last, "pytest's summary must be the last line"


@pytest.mark.parametrize("verb", VERBS)
def test_the_makefile_knows(verb: str) -> None:
    makefile = read("Makefile")
    assert re.search(rf"^{verb}:", makefile, re.MULTILINE), f"Makefile has no {verb}"
    assert verb in re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)[1].split(), f"{verb} is not .PHONY"


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "Makefile", "mkdocs.yml", "docs/index.md", "docs/papers.md", "docs/studies.md"),
        *("docs/datasets.md", "docs/deploy.md", "docs/detectors.md", "docs/report.md", "docs/slurm.md"),
        *("docs/sweeps.md", "docs/telemetry.md"),
    ],
)
def test_every_path_a_page_names_exists(page: str) -> None:
    missing = sorted({name for name in PATH.findall(read(page)) if not (ROOT / name).exists()})
    assert missing == [], f"{page} names files that are not there"


# ---------------------------------------------------------------- versions


def extras() -> dict[str, str]:
    """{tool: pinned version} of setup.cfg's `test` extra."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["options.extras_require"]["test"].split()
    return dict(line.split("==") for line in lines if "==" in line)


def test_pre_commit_has_the_versions_of_the_extras() -> None:
    yaml: Any = pytest.importorskip("yaml")
    repositories = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    hooks = {hook["id"]: (each, hook) for each in repositories for hook in each["hooks"]}
    versions = extras()
    assert hooks["ruff-check"][0]["rev"] == f"v{versions['ruff']}"
    assert hooks["ruff-format"][0]["rev"] == f"v{versions['ruff']}"
    assert hooks["mypy"][1]["additional_dependencies"] == [f"mypy=={versions['mypy']}"]


def test_the_changelog_begins_with_this_version() -> None:
    import ssod

    versions = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", read("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == ssod.__version__


# ---------------------------------------------------------------- docs/papers.md


def test_every_citation_stands_where_it_says() -> None:
    found = citations()
    assert len(found) >= 20, "docs/papers.md cites too little: is its form still `file:line name`?"
    wrong = []
    for path, line, name in found:
        if not (ROOT / path).is_file():
            wrong.append(f"{path} does not exist")
        elif line not in (lines := defined(path, name)):
            place = f"begins at line {' or '.join(map(str, lines))}" if lines else "is not defined there"
            wrong.append(f"{path}:{line} {name} {place}")
    assert wrong == [], "docs/papers.md is stale: run `python tests/test_frame.py`\n" + "\n".join(wrong)


def mend() -> None:
    """Writes the right line into every citation of docs/papers.md."""
    text = PAPERS.read_text(encoding="utf-8")
    mended = CITATION.sub(
        lambda at: f"`{at['path']}:{nearest(at['path'], int(at['line']), at['name'])} {at['name']}`", text
    )
    PAPERS.write_text(mended, encoding="utf-8")


if __name__ == "__main__":
    mend()

"""docs/reliability.md: every row of the fault table names a test that is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
COLUMNS = ["fault", "injected by", "code", "message", "afterwards"]


def tables() -> list[list[list[str]]]:
    """The tables of the page, each a list of rows of cells, without the ruler."""
    found: list[list[list[str]]] = [[]]
    for line in PAGE.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[table[0], *table[2:]] for table in found if table]


ROWS = [row for table in tables() for row in table[1:]]


def test_the_tables_are_whole() -> None:
    assert [table[0] for table in tables()] == [COLUMNS] * len(tables())
    assert [row for row in ROWS if len(row) != len(COLUMNS)] == []
    assert len({row[0] for row in ROWS}) == len(ROWS) >= 25


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(PAGE))))
def test_the_tests_it_names_are_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_every_row_names_a_test_and_a_code() -> None:
    assert [row[0] for row in ROWS if not NAMED.search(row[1])] == []
    assert {row[2] for row in ROWS} <= {"0", "1", "2", "75", "-"}

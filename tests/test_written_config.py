"""A run's own config read as data: equal to what was written, and nothing of it executed."""

from pathlib import Path

import pytest

from ssod.written_config import NotDataError, read_written


@pytest.mark.parametrize(
    "text",
    [
        *("a = open('trap', 'w')", "a = dict.__subclasses__()", "a = [b for b in (1,)]", "a = f'{1}'"),
        *(
            "a = b",
            "import os",
            "a.b = 1",
            "a = -'x'",
            "a = {**[1]}",
            "a = {[1]: 2}",
            "print(1)",
            "a = (",
            "\0",
        ),
    ],
)
def test_what_is_more_than_data_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(NotDataError):
        read_written(tmp_path / "config.py")
    assert not (tmp_path / "trap").exists() and not Path("trap").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotDataError, match="No such file"):
        read_written(tmp_path / "config.py")


def test_what_mmengine_and_sweeps_write(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(
        '"""A run."""\n\na = dict(b=-1, c=(float("inf"), -inf), d={"e f": [None]})\n'
        'g = dict({"h i": {1, 2}}, j=1)\n'
    )
    assert read_written(tmp_path / "config.py") == {
        "a": {"b": -1, "c": (float("inf"), float("-inf")), "d": {"e f": [None]}},
        "g": {"h i": {1, 2}, "j": 1},
    }

"""Files that are whole or not there; errors that name the file."""

import errno
from pathlib import Path

import pytest

from ssod.engine.records.writing import make_folder, naming, replacing, write_text
from ssod.errors import UserError


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space") as caught, naming(tmp_path / "a"):
        (tmp_path / "a").write_text("x")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "a")


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as partial:
        partial.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_made_with_those_above_it_or_refused(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a/b")
        assert (tmp_path / "a/b").is_dir()
    (tmp_path / "f").write_text("mine")
    for wrong in (tmp_path / "f", tmp_path / "f/sub/sub"):
        with pytest.raises(UserError, match=r"--out .*/f.* can't be a folder \(.+\): name another one"):
            make_folder(wrong)
    assert (tmp_path / "f").read_text() == "mine"


def test_a_text_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    write_text(path, "a = 'ü'\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "a = '\ud800'\n")
    assert path.read_text(encoding="utf-8") == "a = 'ü'\n"
    assert list(tmp_path.iterdir()) == [path]

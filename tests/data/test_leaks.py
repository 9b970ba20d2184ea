"""Leaks against comparing every pair of files byte by byte; what is read, and how often."""

import builtins
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssod.data.leaks import Leak, find_leaks


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSOD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened, once for each time."""
    found: list[str] = []
    real = builtins.open

    def noted(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).endswith(".jpg"):
            found.append(Path(path).name)
        return real(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", noted)
    return found


def write(folder: Path, name: str, data: bytes) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return str(folder / name)


def slowly(parts: dict[str, list[str]]) -> set[tuple[str, str, str]]:
    """(part, other part, other path) of each leak, by comparing all with all."""
    data = {path: Path(path).read_bytes() for paths in parts.values() for path in paths}
    return {
        (one, other, path)
        for one, other in combinations(parts, 2)
        for path in parts[other]
        if data[path] and any(data[each] == data[path] for each in parts[one])
    }


def test_the_same_as_comparing_all_with_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts: dict[str, list[str]] = {}
    for part in ("labeled", "unlabeled", "val"):
        parts[part] = []
        for number in range(40):
            # Few lengths and few contents; some differ in the first byte alone, far from the middle.
            content = bytes([int(rng.integers(2))]) + bytes([int(rng.integers(6))]) * int(
                rng.choice([0, 9, 9999])
            )
            parts[part].append(write(tmp_path / part, f"{number}.jpg", content if number else b""))
    found = find_leaks(parts)
    assert {(leak.part, leak.other_part, leak.other_path) for leak in found} == slowly(parts)
    assert len(found) == len({(leak.part, leak.other_part, leak.other_path) for leak in found}) > 50
    for leak in found:
        assert Path(leak.path).read_bytes() == Path(leak.other_path).read_bytes()
        assert leak.path in parts[leak.part] and leak.other_path in parts[leak.other_part]


def test_a_copy_under_another_name_and_one_file_under_two(tmp_path: Path, opened: list[str]) -> None:
    one = write(tmp_path / "a", "one.jpg", b"x" * 5000)
    copy = write(tmp_path / "b", "copy.jpg", b"x" * 5000)
    os.link(one, tmp_path / "b" / "link.jpg")
    link = str(tmp_path / "b" / "link.jpg")
    assert find_leaks({"labeled": [one], "val": [link]}) == [Leak("labeled", one, "val", link)]
    assert find_leaks({"labeled": [one], "val": [one]}) == [Leak("labeled", one, "val", one)]
    assert opened == []  # one file: no look inside is needed
    assert find_leaks({"labeled": [one], "val": [copy]}) == [Leak("labeled", one, "val", copy)]


def test_only_files_of_equal_length_are_read_and_only_once(tmp_path: Path, opened: list[str]) -> None:
    labeled = [write(tmp_path / "a", f"{n}.jpg", bytes([n]) * (100 + n)) for n in range(1, 30)]
    val = [write(tmp_path / "v", f"v{n}.jpg", bytes([n]) * (200 + n)) for n in range(1, 30)]
    same_length = write(tmp_path / "v", "other.jpg", b"?" * 105)
    assert find_leaks({"labeled": labeled, "val": [*val, same_length]}) == []
    assert sorted(opened) == ["5.jpg", "other.jpg"]
    opened.clear()
    assert find_leaks({"labeled": labeled, "val": [*val, same_length]}) == [] and opened == []
    write(tmp_path / "v", "other.jpg", bytes([5]) * 105)  # changed, to the same bytes
    os.utime(same_length, ns=(1, 1))
    [leak] = find_leaks({"labeled": labeled, "val": [*val, same_length]})
    assert leak == Leak("labeled", labeled[4], "val", same_length)


def test_a_file_that_could_not_be_read_is_read_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk changes neither the file's length nor its time."""
    one, copy = (write(tmp_path / part, f"{part}.jpg", b"x" * 5000) for part in "ab")
    real = builtins.open

    def failing(path: Any, *arguments: Any, **options: Any) -> Any:
        if path == copy:
            raise OSError(5, "Input/output error")
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", failing)
        assert find_leaks({"labeled": [one], "val": [copy]}) == []
    assert find_leaks({"labeled": [one], "val": [copy]}) == [Leak("labeled", one, "val", copy)]


def test_copies_within_a_part_and_missing_files_are_no_leaks(tmp_path: Path) -> None:
    twins = [write(tmp_path / "a", name, b"same") for name in ("1.jpg", "2.jpg")]
    other = write(tmp_path / "b", "3.jpg", b"else")
    missing = str(tmp_path / "gone.jpg")
    assert find_leaks({"labeled": [*twins, missing], "val": [other, missing]}) == []

"""Which leaks a run refuses: all but those between the two parts that are only tested on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssod.engine.faults import leak_check
from ssod.engine.faults.data_policy import DataPolicy
from ssod.engine.faults.leak_check import check_leaks, parts_of
from ssod.errors import UserError

PARTS = ("labeled", "unlabeled", "val", "test")


class Files:
    """A dataset of files, as far as paths go."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict[str, Any]:
        return {"img_path": str(self.paths[index])}


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A runner of four parts with three different images each; its test set is another file than val."""
    monkeypatch.setenv("SSOD_CACHE", str(tmp_path / "cache"))
    files = {}
    for part in PARTS:
        (tmp_path / part).mkdir()
        files[part] = [tmp_path / part / f"{number}.jpg" for number in range(3)]
        for number, path in enumerate(files[part]):
            path.write_bytes(f"{part} {number}".ljust(30).encode())
    monkeypatch.setattr(leak_check, "_test_paths", lambda config: [str(path) for path in files["test"]])
    both = SimpleNamespace(datasets=[Files(files["labeled"]), Files(files["unlabeled"])])
    val = SimpleNamespace(dataloader=SimpleNamespace(dataset=Files(files["val"])))
    config = {
        "val_dataloader": {"dataset": {"ann_file": "val"}},
        "test_dataloader": {"dataset": {"ann_file": "t"}},
    }
    return SimpleNamespace(train_dataloader=SimpleNamespace(dataset=both), val_loop=val, cfg=config)


def test_parts(runner: Any) -> None:
    assert {part: len(paths) for part, paths in parts_of(runner).items()} == dict.fromkeys(PARTS, 3)
    runner.cfg["test_dataloader"] = runner.cfg["val_dataloader"]  # the same images: nothing to look at twice
    assert set(parts_of(runner)) == {"labeled", "unlabeled", "val"}
    runner.val_loop = None
    runner.train_dataloader.dataset = runner.train_dataloader.dataset.datasets[0]
    assert set(parts_of(runner)) == {"labeled"}


@pytest.mark.parametrize("one", PARTS)
@pytest.mark.parametrize("other", PARTS)
def test_what_is_refused(one: str, other: str, runner: Any) -> None:
    parts = parts_of(runner)
    Path(parts[other][2]).write_bytes(Path(parts[one][1]).read_bytes())
    first, second = sorted((one, other), key=PARTS.index)
    if one == other or {one, other} == {"val", "test"}:
        assert check_leaks(runner, DataPolicy()) == {"count": 0, "pairs": {}, "text": ""}
        return
    with pytest.raises(UserError, match=f"1 between {first} and {second}: .*allow_leaks=True") as caught:
        check_leaks(runner, DataPolicy())
    assert "\n" not in str(caught.value)
    found = check_leaks(runner, DataPolicy(allow_leaks=True))
    assert (found["count"], found["pairs"]) == (1, {f"{first} and {second}": 1})
    assert parts[one][1] in found["text"] and parts[other][2] in found["text"]

"""The `split` block of a result: from the manifest, true to the images, the same on all processes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssod.data.splits import SplitOptions, split_file
from ssod.engine.faults.data_in_use import check_agreement, describe_data
from ssod.engine.processes import agree, on_all
from ssod.errors import UserError

CLASSES = ("a", "b")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the splits 1@20, 2@20 and 1@50 of 40 images, of which every fourth has no box."""
    images = [dict(id=n, file_name=f"{n}.jpg", width=60, height=40) for n in range(40, 0, -1)]
    truth = [
        dict(id=n, image_id=n, category_id=n % 2, bbox=[1, 2, 9, 9], area=81, iscrowd=0)
        for n in range(1, 41)
        if n % 4
    ]
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES)]
    source = tmp_path / "all.json"
    source.write_text(json.dumps(dict(images=images, annotations=truth, categories=categories)))
    options = SplitOptions("own", percents=("20",), folds=(1, 2))
    split_file(source, tmp_path / "splits", options)
    split_file(source, tmp_path / "splits", SplitOptions("own", percents=("50",)))
    return tmp_path / "splits"


def loader_of(folder: Path, labeled: str, unlabeled: str, **options: Any) -> Any:
    from ssod.data.datasets import LabeledCoco, UnlabeledCoco

    common = dict(metainfo=dict(classes=CLASSES), data_prefix=dict(img=str(folder)), pipeline=[])
    common |= dict(data_root=str(folder))
    datasets = [
        LabeledCoco(ann_file=labeled, **common, **options),
        UnlabeledCoco(ann_file=unlabeled, **common),
    ]
    return SimpleNamespace(
        dataset=SimpleNamespace(datasets=datasets), sampler=SimpleNamespace(counts=(1, 4)), batch_size=5
    )


def ids_of(path: Path) -> list[int]:
    return [image["id"] for image in json.loads(path.read_text())["images"]]


def test_the_manifest_names_the_split(folder: Path, registered: None) -> None:
    loader = loader_of(folder, "all.2@20.json", "all.2@20-unlabeled.json")
    lines = "\n".join(map(str, sorted(ids_of(folder / "all.2@20.json"))))
    assert describe_data(loader) == {
        "batch": {"labeled": 1, "unlabeled": 4},
        "split": {
            "protocol": "own",
            "percent": 20,
            "fold": 2,
            "num_labeled": 8,
            "num_unlabeled": 32,
            "ids_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        },
    }
    manifest = json.loads((folder / "manifest.json").read_text())["splits"]
    assert describe_data(loader)["split"]["ids_sha256"] == manifest["all.2@20"]["labeled"]["ids_sha256"]


def test_what_a_filter_drops_changes_the_count_and_not_the_split(folder: Path, registered: None) -> None:
    names = ("all.1@50.json", "all.1@50-unlabeled.json")
    plain = describe_data(loader_of(folder, *names))["split"]
    filtered = describe_data(loader_of(folder, *names, filter_cfg=dict(filter_empty_gt=True)))["split"]
    with_box = [n for n in ids_of(folder / names[0]) if n % 4]
    assert plain["num_labeled"] == 20 and filtered["num_labeled"] == len(with_box) < 20
    assert {**filtered, "num_labeled": 20} == plain


def test_a_part_of_a_file_is_no_published_split(folder: Path, registered: None) -> None:
    some = ids_of(folder / "all.1@50.json")[:3]
    for options in (dict(only_ids=some), dict(indices=3)):
        split = describe_data(loader_of(folder, "all.1@50.json", "all.1@50-unlabeled.json", **options))[
            "split"
        ]
        assert (split["protocol"], split["percent"], split["fold"]) == ("file", None, None)
        lines = "\n".join(map(str, sorted(some)))
        assert split["num_labeled"] == 3
        assert split["ids_sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_without_a_manifest_the_protocol_is_the_file(folder: Path, registered: None) -> None:
    (folder / "manifest.json").unlink()
    split = describe_data(loader_of(folder, "all.1@20.json", "all.1@20-unlabeled.json"))["split"]
    assert split["protocol"] == "file" and split["num_labeled"] == 8


@pytest.mark.parametrize("name", ["all.1@20.json", "all.1@20-unlabeled.json"])
def test_a_changed_file_is_refused(folder: Path, registered: None, name: str) -> None:
    content = json.loads((folder / name).read_text())
    content["images"] = content["images"][1:]
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{name} was changed: .* split all.1@20 ") as caught:
        describe_data(loader_of(folder, "all.1@20.json", "all.1@20-unlabeled.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["all.2@20", "all.1@50"])
def test_files_of_two_splits_are_refused(folder: Path, registered: None, other: str) -> None:
    """Whoever changes the labeled file and forgets the other would train on truth as unlabeled images."""
    with pytest.raises(UserError, match=f"of split all.1@20, unlabeled ones of {other} .*they overlap"):
        describe_data(loader_of(folder, "all.1@20.json", f"{other}-unlabeled.json"))


def on_rank(rank: int, meeting: Path, folder: Path, found: Any) -> None:
    """One of two ranks: the second has other unlabeled images, and input that is at fault."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    other = loader_of(folder, "all.1@20.json", f"all.{1 + rank}@20-unlabeled.json")
    same = loader_of(folder, "all.1@20.json", "all.1@20-unlabeled.json")

    def at_fault() -> int:
        if rank == 1:
            raise UserError("the second says no")
        return 1

    said: list[Any] = [rank]
    works: list[Any] = [lambda: check_agreement(other), lambda: on_all(at_fault), lambda: agree("x", "y")]
    for work in works:
        try:
            said.append(work())
        except UserError as error:
            said.append(str(error))
    said += [check_agreement(same), on_all(lambda: rank)]
    found.put(said)
    torch.distributed.destroy_process_group()


def test_two_ranks_agree_or_stop(folder: Path, registered: None, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    ranks = [
        context.Process(target=on_rank, args=(rank, tmp_path / "meet", folder, found)) for rank in (0, 1)
    ]
    for each in ranks:
        each.start()
    answers = sorted(found.get(timeout=60) for _ in ranks)
    for rank, (own, differ, fault, *fine) in enumerate(answers):
        assert own == rank and fault == "the second says no" and fine == [None, None, rank]
        assert "unlabeled images (" in differ and "process 1 has 32 images" in differ and "\n" not in differ
    for each in ranks:
        each.join(60)

"""The split tool: files, names, manifest, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from reference.modules import load_tool

import ssod
from ssod.data import split_manifest
from ssod.data.split_manifest import find_split, hash_of_ids, read_splits
from ssod.data.splits import PROTOCOLS, SplitOptions, split_file
from ssod.errors import UserError

NUM = 200


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """200 images in an order that is not that of their ids, 150 of them with boxes of two classes."""
    ids = np.random.default_rng(3).permutation(np.arange(1, 1000))[:NUM].tolist()
    images = [dict(id=i, file_name=f"{i}.jpg", width=8, height=6) for i in ids]
    truth = [
        dict(id=n, image_id=ids[n % 150], category_id=1 + n % 2, bbox=[1, 1, 2, 2], area=4, iscrowd=0)
        for n in range(300)
    ]
    categories = [dict(id=1, name="a"), dict(id=2, name="b")]
    content = dict(info={"year": 2017}, images=images, annotations=truth, categories=categories)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    return path


def ids_of(path: Path) -> list[int]:
    return [image["id"] for image in json.loads(path.read_text())["images"]]


def stac(*percents: str, **more: Any) -> SplitOptions:
    return SplitOptions("stac", percents=percents, **more)


def own(*percents: str, **more: Any) -> SplitOptions:
    return SplitOptions("own", percents=percents, **more)


def test_hash_is_of_the_set_of_images() -> None:
    expected = hashlib.sha256(b"2\n10\n33").hexdigest()
    assert hash_of_ids([33, 2, 10]) == hash_of_ids([10, 33, 2]) == expected
    assert hash_of_ids([2, 10]) != expected


# ---------------------------------------------------------------- files


def test_files_of_several_percentages_and_folds(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    entries = split_file(source, out, stac("1.0", "0.5", "10", folds=(1, 2, 1)))
    keys = [f"mine.{fold}@{percent}" for fold in (1, 2) for percent in ("1", "0.5", "10")]
    assert list(entries) == keys
    files = {f"{key}{part}.json" for key in keys for part in ("", "-unlabeled")} | {"manifest.json"}
    assert {each.name for each in out.iterdir()} == files
    content, order = json.loads(source.read_text()), ids_of(source)
    for key in keys:
        labeled, unlabeled = (
            json.loads((out / f"{key}{part}.json").read_text()) for part in ("", "-unlabeled")
        )
        for part in (labeled, unlabeled):
            kept = {image["id"] for image in part["images"]}
            assert part["images"] == [image for image in content["images"] if image["id"] in kept]
            assert part["categories"] == content["categories"] and part["info"] == content["info"]
        chosen = {image["id"] for image in labeled["images"]}
        assert labeled["annotations"] == [one for one in content["annotations"] if one["image_id"] in chosen]
        assert unlabeled["annotations"] == [] and "area" not in (out / f"{key}-unlabeled.json").read_text()
        assert sorted([*ids_of(out / f"{key}.json"), *ids_of(out / f"{key}-unlabeled.json")]) == sorted(order)
    state = np.random.RandomState(2).choice(NUM, 20)
    assert ids_of(out / "mine.2@10.json") == [order[place] for place in sorted(set(state.tolist()))]


def test_own_splits_have_a_common_held_out_part(source: Path, tmp_path: Path) -> None:
    entries = split_file(
        source, tmp_path / "out", own("5", "20", folds=(1, 2), held_out="15", stratified=True)
    )
    aside = set(ids_of(tmp_path / "out" / "mine-held-out.json"))
    assert len(aside) == 30
    assert json.loads((tmp_path / "out" / "mine-held-out.json").read_text())["annotations"]
    for key, entry in entries.items():
        labeled, unlabeled = (
            set(ids_of(tmp_path / "out" / f"{key}{part}.json")) for part in ("", "-unlabeled")
        )
        assert labeled | unlabeled | aside == set(ids_of(source))
        assert len(labeled) + len(unlabeled) + len(aside) == NUM
        assert entry["held_out"]["num_images"] == 30 and entry["held_out"]["file"] == "mine-held-out.json"
        assert len(labeled) == {5: 9, 20: 34}[entry["percent"]]  # of 170: 8.5, up


def test_counts_and_images_per_class_have_names_of_their_own(source: Path, tmp_path: Path) -> None:
    split_file(source, tmp_path, SplitOptions("own", counts=(7,), per_class=(3,)))
    assert len(ids_of(tmp_path / "mine.1@7images.json")) == 7
    assert 3 <= len(ids_of(tmp_path / "mine.1@3perclass.json")) <= 6
    splits = read_splits(tmp_path)
    assert [splits["mine.1@7images"][key] for key in ("percent", "count", "per_class")] == [None, 7, None]
    assert [splits["mine.1@3perclass"][key] for key in ("percent", "count", "per_class")] == [None, None, 3]


@pytest.mark.parametrize(
    "more",
    [dict(seed=5), dict(folds=(2,)), dict(stratified=True), dict(held_out="10"), dict(percents=("11",))],
)
def test_every_option_changes_the_draw(source: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    plain = split_file(source, tmp_path / "a", own("10"))
    other = split_file(source, tmp_path / "b", SplitOptions("own", **{"percents": ("10",), **more}))
    hashes = [next(iter(each.values()))["labeled"]["ids_sha256"] for each in (plain, other)]
    assert hashes[0] != hashes[1]


def test_soft_teachers_seed_is_an_offset(source: Path, tmp_path: Path) -> None:
    options = [
        SplitOptions("soft_teacher", percents=("10",), folds=(f,), seed=s) for f, s in ((3, 0), (1, 2))
    ]
    one, other = (
        next(iter(split_file(source, tmp_path / str(n), each).values())) for n, each in enumerate(options)
    )
    assert one["seed"] == other["seed"] == 3
    assert one["labeled"]["ids_sha256"] == other["labeled"]["ids_sha256"]


# ---------------------------------------------------------------- the manifest


def test_the_manifest(source: Path, tmp_path: Path) -> None:
    entries = split_file(source, tmp_path / "out", stac("10", "0.5"))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == {"schema": 1, "splits": entries}
    labeled = ids_of(tmp_path / "out" / "mine.1@10.json")
    truth = json.loads((tmp_path / "out" / "mine.1@10.json").read_text())["annotations"]
    assert entries["mine.1@0.5"]["percent"] == 0.5
    assert entries["mine.1@10"] == {
        "protocol": "stac",
        "percent": 10,
        "count": None,
        "per_class": None,
        "fold": 1,
        "seed": 1,
        "stratified": False,
        "source": {
            "file": "mine.json",
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "num_images": NUM,
        },
        "list_sha256": None,
        "labeled": {
            "file": "mine.1@10.json",
            "num_images": len(labeled),
            "num_annotations": len(truth),
            "ids_sha256": hash_of_ids(labeled),
        },
        "unlabeled": {
            "file": "mine.1@10-unlabeled.json",
            "num_images": NUM - len(labeled),
            "num_annotations": 0,
            "ids_sha256": hash_of_ids(ids_of(tmp_path / "out" / "mine.1@10-unlabeled.json")),
        },
        "held_out": None,
        "num_left_out": 0,
        "note": "drawn from 200 images; the published splits are of 118287",
        "tool_version": ssod.__version__,
    }


def test_a_file_finds_its_split(source: Path, tmp_path: Path) -> None:
    split_file(source, tmp_path / "out", stac("10"))
    for part, suffix in (("labeled", ""), ("unlabeled", "-unlabeled")):
        found = find_split(tmp_path / "out" / f"mine.1@10{suffix}.json", part)
        assert found is not None and found[0] == "mine.1@10"
    assert find_split(tmp_path / "out" / "mine.1@10.json", "unlabeled") is None
    assert find_split(source, "labeled") is None


def test_more_splits_join_the_manifest_and_the_same_again_changes_nothing(
    source: Path, tmp_path: Path
) -> None:
    split_file(source, tmp_path / "out", stac("10"))
    split_file(source, tmp_path / "out", stac("5", folds=(3,)))
    before = {each.name: each.read_bytes() for each in (tmp_path / "out").iterdir()}
    assert set(read_splits(tmp_path / "out")) == {"mine.1@10", "mine.3@5"}
    split_file(source, tmp_path / "out", stac("10"))
    assert {each.name: each.read_bytes() for each in (tmp_path / "out").iterdir()} == before


def test_calls_at_the_same_time_all_enter_their_splits(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reads the manifest and writes it again with its own: one after the other."""
    import threading

    ready, replace = threading.Barrier(4), split_manifest.os.replace

    def late(*paths: Any) -> None:
        time.sleep(0.05)
        replace(*paths)

    def split(percent: str) -> None:
        ready.wait()
        split_file(source, tmp_path / "out", stac(percent))

    monkeypatch.setattr(split_manifest.os, "replace", late)
    calls = [threading.Thread(target=split, args=(percent,)) for percent in ("5", "10", "20", "40")]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert read_splits(tmp_path / "out").keys() == {
        f"mine.1@{percent}" for percent in ("5", "10", "20", "40")
    }
    assert snapshot(tmp_path / "out").keys() >= {"manifest.json", "mine.1@5.json", "mine.1@40.json"}


def test_an_interrupted_call_can_be_repeated(source: Path, tmp_path: Path) -> None:
    split_file(source, tmp_path / "whole", stac("10"))
    split_file(source, tmp_path / "cut", stac("10"))
    (tmp_path / "cut" / "mine.1@10.json").unlink()
    split_file(source, tmp_path / "cut", stac("10"))
    assert (tmp_path / "cut" / "mine.1@10.json").read_bytes() == (
        tmp_path / "whole" / "mine.1@10.json"
    ).read_bytes()


def snapshot(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def test_splits_of_another_protocol_or_source_are_kept(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    split_file(source, out, stac("10"))
    before = snapshot(out)
    with pytest.raises(UserError, match=r"another split mine\.1@10 \(protocol stac.*differ in protocol"):
        split_file(source, out, own("10"))
    changed = tmp_path / "elsewhere" / "mine.json"
    changed.parent.mkdir()
    changed.write_text(source.read_text() + " ")
    with pytest.raises(UserError, match=r"from mine\.json; this one would differ in source\)"):
        split_file(changed, out, stac("5", "10"))
    assert snapshot(out) == before


def test_a_held_out_part_that_other_splits_use_is_kept(source: Path, tmp_path: Path) -> None:
    split_file(source, tmp_path / "out", own("10", held_out="10"))
    before = snapshot(tmp_path / "out")
    with pytest.raises(UserError, match=r"another mine-held-out\.json, which other splits"):
        split_file(source, tmp_path / "out", own("20", held_out="20"))
    assert snapshot(tmp_path / "out") == before


def test_files_that_are_not_ours_are_kept(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.1@10-unlabeled.json").write_text("of mmdet")
    with pytest.raises(UserError, match=r"mine\.1@10-unlabeled\.json exists and no manifest\.json of ours"):
        split_file(source, tmp_path, stac("10"))
    (tmp_path / "other").mkdir()
    for theirs in ('{"packages": []}', '{"splits": ["train"]}', '{"splits": {"train": {"num": 3}}}'):
        (tmp_path / "other" / "manifest.json").write_text(theirs)
        assert find_split(tmp_path / "other" / "mine.json", "labeled") is None
        with pytest.raises(UserError, match="is not a list of splits"):
            split_file(source, tmp_path / "other", stac("10"))
    assert not (tmp_path / "mine.1@10.json").exists()
    assert [each.name for each in (tmp_path / "other").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "content",
    ["{", '"splits": {"a": 3}}', '"splits": {"a": {"protocol": "own", "labeled": {"file": "x"}}}}'],
)
def test_a_broken_manifest(source: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text('{"schema": 1, ' + content)
    with pytest.raises(
        UserError, match=r"manifest .*manifest\.json (can't be read|has a broken entry)"
    ) as caught:
        split_file(source, tmp_path, stac("10"))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- options and the tool


@pytest.mark.parametrize(
    ("protocol", "options", "said"),
    [
        ("mmdet", dict(percents=("10",)), "protocol 'mmdet'; use 'stac' or"),
        ("stac", {}, "nothing to split: give --percent"),
        ("own", dict(percents=("10",), folds=()), "nothing to split"),
        ("stac", dict(percents=("0",)), "--percent 0: give a number"),
        ("stac", dict(counts=(5,)), "--count is for --protocol own"),
        ("stac", dict(percents=("1",), per_class=(5,)), "--per-class is for --protocol own"),
        ("soft_teacher", dict(percents=("1",), held_out="5"), "--held-out is for --protocol own"),
        ("paddle", dict(percents=("1",), stratified=True), "--stratified is for --protocol own"),
        ("stac", dict(percents=("1",), seed=3), "--seed is for --protocol own and soft_teacher"),
        ("own", dict(per_class=(2,), stratified=True), "both given: choose one"),
        ("paddle", dict(percents=("1",)), "needs --list FILE"),
        ("stac", dict(percents=("1",), list_path="x"), "takes no --list"),
        ("own", dict(percents=("1",), held_out="101"), "--held-out 101: give a number from 0 to 100"),
    ],
)
def test_options_that_do_not_fit(protocol: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        SplitOptions(protocol, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    module: ModuleType = load_tool("split_data")
    return module


def test_the_tool(tool: ModuleType, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [source, "--protocol", "own", "--percent", 5, "10.0", "--fold", 1, 2, "--out", tmp_path / "out"]
    assert tool.main([*map(str, words), "--held-out", "10", "--seed", "4", "--stratified"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["mine.1@5", "mine.1@10", "mine.2@5", "mine.2@10"]
    assert "18 labeled, 162 unlabeled, 20 held out; ids " in said[1]
    direct = own("5", "10", folds=(1, 2), held_out="10", seed=4, stratified=True)
    assert split_file(source, tmp_path / "direct", direct) == read_splits(tmp_path / "out")
    assert (
        tool.main([str(source), "--protocol", "stac", "--percent", "5", "--out", str(tmp_path / "stac")]) == 0
    )
    assert "published splits are of 118287" in capsys.readouterr().out


def test_the_tool_and_bad_input(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = [str(tmp_path / "gone.json"), "--out", str(tmp_path / "out"), "--percent", "10", "--protocol"]
    assert tool.main([*gone, "stac"]) == 2
    assert capsys.readouterr().err.startswith("error: cannot read annotation file")
    assert tool.main([*gone, "paddle"]) == 2
    assert tool.main([*gone, "paddle", "--list", str(tmp_path / "gone.txt")]) == 2
    assert "gone.txt can't be read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_tool_offers_every_protocol(tool: ModuleType) -> None:
    for protocol in PROTOCOLS:
        assert tool.parse(["x", "--out", "y", "--protocol", protocol]).protocol == protocol


def test_a_list_over_another_file_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text('{"10.0": {"1": [0, 1]}}')
    options = SplitOptions("unbiased_teacher", percents=("10",), list_path=tmp_path / "list.txt")
    with pytest.raises(
        UserError, match="118,287 images, 117,266 of them with a box; this file has 200 images"
    ):
        split_file(source, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_a_file_without_images(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(UserError, match="has no images"):
        split_file(tmp_path / "empty.json", tmp_path, stac("10"))


def test_an_out_that_is_a_file(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder that can be made"):
        split_file(source, source, stac("10"))

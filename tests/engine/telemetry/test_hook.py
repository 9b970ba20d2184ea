"""Telemetry in short runs of every method: what it writes, and that training can't notice it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from reference.killed_runs import METHODS, differences, state_of, write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STEPS = 6
OPTIONS = {
    "train_cfg.max_iters": STEPS,
    "train_cfg.val_interval": 3,
    "default_hooks.scalars.interval": 3,
    "default_hooks.pictures.num_images": 1,
    "default_hooks.checkpoint.interval": STEPS,
}
pytestmark = pytest.mark.usefixtures("registered", "no_collection", "no_layout")


@pytest.fixture
def no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine lays out the config's text anew for each checkpoint, which takes longer than all else here."""
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **_: (text, False))


@pytest.fixture(autouse=True)
def sure_networks() -> None:
    """Random networks that find something, whatever ran before: with other seeds some are sure of nothing."""
    torch.manual_seed(2)


def trained(
    config: Path, work_dir: Path, truth: str | None, num_images: int = 6, more: dict[str, Any] | None = None
) -> Path:
    """The folder with the results of a run; of STAC's student."""
    from ssod.engine.train import train

    options = {
        "default_hooks.telemetry.num_images": num_images,
        "default_hooks.telemetry.batch_size": 4,
        "default_hooks.telemetry.truth": truth,
    }
    if config.stem == "STAC":
        options["stages.teacher.train_cfg.max_iters"] = 4
    assert train(config, work_dir=work_dir, options=OPTIONS | options | (more or {}))["status"] == "done"
    return work_dir / "stage_3_student" if config.stem == "STAC" else work_dir


def truth_of(folder: Path) -> Path:
    return folder / "shapes/annotations/train_unlabeled_truth.json"


def write_garbage(path: Path, out: Path) -> str:
    """The same images and classes with other boxes, moved, of other sizes and classes."""
    content = json.loads(path.read_text())
    random = np.random.default_rng(0)
    for one in content["annotations"]:
        one["bbox"] = random.uniform(5, 80, 4).round(2).tolist()
        one["category_id"] = int(random.choice([each["id"] for each in content["categories"]]))
    content["annotations"] = content["annotations"][::2]
    out.write_text(json.dumps(content))
    return str(out)


def lines(work_dir: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]
    return [each for each in records if each["kind"] == "pseudo_labels"]


def unseen(work_dir: Path) -> dict[str, Any]:
    """All that must be equal to the bit, without what telemetry says."""
    state = state_of(work_dir)
    state["lines"] = [each for each in state["lines"] if each["kind"] != "pseudo_labels"]
    return state


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("MeanTeacher", "STAC")]


@pytest.mark.parametrize("method", ["SoftTeacher", "FixMatch", *SLOW])
def test_no_weight_depends_on_the_hidden_truth(method: str, tmp_path: Path) -> None:
    """Truth, garbage in its place, and no telemetry at all: the same training to the bit, other figures."""
    config = write_config(tmp_path, method)
    truth = truth_of(tmp_path)
    with_truth = trained(config, tmp_path / "truth", str(truth))
    garbage = trained(config, tmp_path / "garbage", write_garbage(truth, tmp_path / "garbage.json"))
    without = trained(config, tmp_path / "without", None, num_images=0)
    for other in (garbage, without):
        found = differences(unseen(with_truth), unseen(other))
        assert not found, "\n".join(found[:20])
    assert not lines(without)
    assert [each["iteration"] for each in lines(with_truth)] == [3, 6]
    assert lines(with_truth)[-1]["candidates/recall_50"] is not None
    if method == "SoftTeacher":  # random networks hit nothing, yet boxes overlap one truth or the other
        contents = [(each / "pseudo_labels/telemetry.json").read_text() for each in (with_truth, garbage)]
        points = [json.loads(each)["spread"]["points"] for each in contents]
        assert points[0]["spread"] == points[1]["spread"] and points[0]["iou"] != points[1]["iou"]
    check_contract(with_truth, method)


PARTS = {
    "SoftTeacher": {"candidates", "projected", "rpn", "cls", "box"},
    "FixMatch": {"candidates", "projected", "labels"},
    "MeanTeacher": {"candidates"},
    "STAC": {"candidates", "labels"},
}
MEASURES = ("precision_50", "recall_50", "mean_iou", "boxes_per_image")


def check_contract(work_dir: Path, method: str) -> None:
    """The keys that the report reads, in the line, in result.json and in the folder."""
    from ssod.data.shapes import CLASSES

    line = lines(work_dir)[-1]
    assert {key.split("/")[0] for key in line if "/" in key} == PARTS[method]
    for part in PARTS[method]:
        assert all(f"{part}/{measure}" in line for measure in MEASURES)
        named = {key.split("/")[1] for key in line if key.startswith(f"{part}/") and key.count("/") == 2}
        assert named == (set() if part in ("rpn", "projected") else set(CLASSES))
    head = {"SoftTeacher": "cls", "MeanTeacher": None}.get(method, "labels")
    flat = {measure: line[measure] for measure in MEASURES}
    assert flat == {name: None if head is None else line[f"{head}/{name}"] for name in MEASURES}
    assert line["images"] == line["images_with_truth"] == 6
    result = json.loads((work_dir / "result.json").read_text())["pseudo_labels"]
    if head is not None:
        assert result == flat and result["boxes_per_image"] is not None
    events = EventAccumulator(str(work_dir / "tensorboard"))
    events.Reload()
    shown = events.Scalars("pseudo_labels/candidates/boxes_per_image")
    assert [each.step for each in shown] == [3, 6]
    assert shown[-1].value == pytest.approx(line["candidates/boxes_per_image"])
    folder = work_dir / "pseudo_labels"
    content = json.loads((folder / "telemetry.json").read_text())
    assert content["iteration"] == STEPS and content["seconds"] > 0
    assert sum(each["count"] for each in content["calibration"]["bins"]) > 0
    stages = {each["stage"]: each["boxes_per_image"] for each in content["filters"]}
    assert set(stages) == PARTS[method] | {"detections"}
    assert stages["candidates"] == pytest.approx(line["candidates/boxes_per_image"])
    pictures = {path.name for path in folder.glob("*.png")}
    spread = {"spread.png"} if method == "SoftTeacher" else set()
    assert pictures == {"calibration.png"} | spread
    if spread:
        points = content["spread"]["points"]
        assert len(points["iou"]) == len(points["spread"]) == len(points["score"]) > 0
        assert content["spread"]["bound"] == 0.2
        assert all(0 <= value <= 1 for value in points["iou"])


def test_without_truth_boxes_are_counted_and_nothing_is_claimed(tmp_path: Path, capsys: Any) -> None:
    """And, of a bound that no score reaches, the console says so once, whoever notices it."""
    bound = {"model.method.cls_min_score": 0.999, "default_hooks.telemetry.interval": 2}
    work_dir = trained(write_config(tmp_path, "SoftTeacher"), tmp_path / "run", None, more=bound)
    assert [each["iteration"] for each in lines(work_dir)] == [6], "every second validation"
    printed = capsys.readouterr().out
    assert printed.count("burn-in until iteration 3 (model.method.unsup_weight.start)") == 1
    assert printed.count("classification: the threshold is too high") == 1
    assert "cls_min_score 0.999: lower it to" in printed
    line = lines(work_dir)[-1]
    assert line["images_with_truth"] == 0 and line["candidates/boxes_per_image"] > 0
    for key, value in line.items():
        if key.endswith(("precision_50", "recall_50", "mean_iou")):
            assert value is None, key
    content = json.loads((work_dir / "pseudo_labels/telemetry.json").read_text())
    assert content["calibration"]["expected_error"] is None
    assert {each["precision"] for each in content["calibration"]["bins"]} == {None}
    assert not any(value is not None for value in content["spread"]["points"]["iou"])


@pytest.mark.slow
def test_a_supervised_run_has_no_telemetry(tmp_path: Path) -> None:
    work_dir = trained(
        write_config(tmp_path, "supervised"), tmp_path / "run", str(tmp_path / "not there.json")
    )
    assert lines(work_dir) == [] and not (work_dir / "pseudo_labels").exists()


def test_a_truth_of_other_images_is_refused(tmp_path: Path) -> None:
    from ssod.errors import UserError

    config = write_config(tmp_path, "FixMatch")
    content = json.loads(truth_of(tmp_path).read_text())
    for image in content["images"]:
        image["file_name"] = f"other_{image['file_name']}"
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="names none of 6 unlabeled images"):
        trained(config, tmp_path / "run", str(tmp_path / "other.json"))


class Images:
    """The training's data: ten labeled images and forty others."""

    def __init__(self) -> None:
        self.cumulative_sizes = (10, 50)
        self.metainfo = {"classes": ("cat",)}

    def get_data_info(self, index: int) -> dict[str, str]:
        return {"img_path": f"/data/{index}.jpg"}


def fake_runner(cfg: dict[str, Any], counts: tuple[int, ...] = (1, 4)) -> Any:
    """What the hook sees before a run; `said` gets the calls of other hooks."""
    from mmengine.runner import IterBasedTrainLoop

    said: list[tuple[str, Any]] = []
    loader = SimpleNamespace(
        dataset=Images(), collate_fn=None, sampler=SimpleNamespace(counts=counts), batch_size=sum(counts)
    )
    return SimpleNamespace(
        _train_loop=object.__new__(IterBasedTrainLoop),
        train_dataloader=loader,
        model=SimpleNamespace(method="any"),
        cfg=cfg,
        logger=SimpleNamespace(warning=lambda text: said.append(("warning", text))),
        call_hook=lambda name, **values: said.append((name, values.get("text"))),
        said=said,
    )


def write_truth(path: Path, name: str, box: Any) -> str:
    content = {
        "images": [{"id": 1, "file_name": name}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("name", "box", "said"),
    [
        (None, None, "does not exist: "),
        ("other.jpg", [1, 2, 3, 4], "names none of 40 unlabeled images, such as /data/10.jpg: "),
        ("10.jpg", [], "record 0 of 'annotations'"),
    ],
    ids=["missing", "other images", "malformed"],
)
def test_a_truth_that_cannot_be_used(tmp_path: Path, name: str | None, box: Any, said: str) -> None:
    """The config's: one line, and no truth. The hook's own: refused."""
    from ssod.engine.telemetry.hook import PseudoLabelTelemetry
    from ssod.errors import UserError

    path = str(tmp_path / "truth.json")
    if name is not None:
        write_truth(tmp_path / "truth.json", name, box)
    hook, runner = PseudoLabelTelemetry(), fake_runner({"hidden_truth": path})
    hook.before_run(runner)
    assert hook.truth is None and hook.sample is not None
    assert [each for each, _ in runner.said] == ["warning", "after_notice"]
    text = runner.said[0][1]
    assert text.startswith("pseudo labels are measured without truth: ") and "\n" not in text
    assert said in text and path in text
    with pytest.raises(UserError, match=said):
        PseudoLabelTelemetry(truth=path).before_run(fake_runner({"hidden_truth": None}))


def test_truth_is_read_before_processes_watch_each_other(tmp_path: Path) -> None:
    """The rank watch is armed before training; reading a large file holds up every thread of a process."""
    from ssod.engine.faults.rank_watch import RankWatch
    from ssod.engine.telemetry.hook import PseudoLabelTelemetry

    assert "before_train" in vars(RankWatch) and "before_run" not in vars(RankWatch)
    assert not {"before_train", "before_train_epoch"} & set(vars(PseudoLabelTelemetry))
    path = write_truth(tmp_path / "truth.json", "10.jpg", [1, 2, 3, 4])
    hook, runner = PseudoLabelTelemetry(), fake_runner({"hidden_truth": path})
    hook.before_run(runner)
    assert hook.truth is not None and runner.said == [("after_hidden_truth", None)]
    alone = PseudoLabelTelemetry(truth="gone.json")
    alone.before_run(SimpleNamespace(_train_loop=None))  # a test: nothing is read
    assert alone.sample is None


@pytest.mark.parametrize(
    ("counts", "given", "expected"), [((1, 4), 8, 4), ((4, 16), 8, 8), ((1, 1, 2), 8, 3)]
)
def test_no_more_images_at_once_than_in_a_step(counts: tuple[int, ...], given: int, expected: int) -> None:
    from ssod.engine.telemetry.hook import PseudoLabelTelemetry

    hook = PseudoLabelTelemetry(batch_size=given)
    hook.before_run(fake_runner({}, counts))
    assert hook.sample is not None and hook.sample.batch_size == expected


def test_truth_in_the_place_of_labels_is_perfect(tmp_path: Path) -> None:
    """STAC's file holding the truth itself: every figure is 1, through the strong view's turn and crop."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    from ssod.data.hidden_truth import HiddenTruth
    from ssod.data.shapes import CLASSES
    from ssod.engine.telemetry import record
    from ssod.engine.telemetry.measure import measure
    from ssod.engine.telemetry.sample import Sample
    from ssod.registry import MODELS

    config = Config.fromfile(write_config(tmp_path, "STAC"))
    content = json.loads(truth_of(tmp_path).read_text())
    for one in content["annotations"]:
        one["score"] = 0.95
    (tmp_path / "perfect.json").write_text(json.dumps(content))
    config.train_dataloader.dataset.datasets[1].labels = str(tmp_path / "perfect.json")
    loader = Runner.build_dataloader(config.train_dataloader)
    model = MODELS.build(config.model)
    sample = Sample(loader.dataset, loader.collate_fn, num_images=8, batch_size=3)
    assert len(set(sample.indices)) == 8 and min(sample.indices) >= len(loader.dataset.datasets[0])
    hidden = HiddenTruth(str(truth_of(tmp_path)), CLASSES)
    found = measure(model, sample.batches(), hidden, len(CLASSES))
    assert found is not None and found.images == found.known == 8
    line = record.line(found, CLASSES)
    assert line["precision_50"] == line["recall_50"] == 1.0
    assert line["mean_iou"] == pytest.approx(1.0, abs=1e-4) and line["boxes_per_image"] > 1
    again = measure(model, sample.batches(), hidden, len(CLASSES))
    assert again is not None
    assert {k: v for k, v in record.line(again, CLASSES).items() if not math.isnan(v)} == {
        k: v for k, v in line.items() if not math.isnan(v)
    }
    assert model.training and model.student.training, "as it was found"
    assert torch.equal(
        torch.as_tensor(found.detections.scores), torch.as_tensor(found.parts["candidates"].scores)
    )


def test_all_methods_are_tried() -> None:
    assert set(PARTS) | {"supervised", "UnbiasedTeacher"} == set(METHODS)


@pytest.mark.parametrize(
    "options", [dict(num_images=-1), dict(interval=0), dict(batch_size=0)], ids=lambda each: next(iter(each))
)
def test_wrong_options_are_refused(options: dict[str, int]) -> None:
    from ssod.engine.telemetry.hook import PseudoLabelTelemetry
    from ssod.errors import UserError

    with pytest.raises(UserError, match="PseudoLabelTelemetry: num_images="):
        PseudoLabelTelemetry(**options)


def test_images_are_spread_over_all_unlabeled_ones_and_batched() -> None:
    from ssod.engine.telemetry.sample import Sample

    class Items(SimpleNamespace):
        def __getitem__(self, index: int) -> int:
            return int(index)

    dataset = Items(cumulative_sizes=[50, 90, 150])
    sample = Sample(dataset, lambda items: {"items": items}, num_images=10, batch_size=4)
    assert sample.indices == [55, 65, 75, 85, 95, 105, 115, 125, 135, 145]
    assert [batch["items"] for batch in sample.batches()] == [
        [0, 55, 65, 75, 85],
        [0, 95, 105, 115, 125],
        [0, 135, 145],
    ]
    assert [batch["items"] for batch in sample.batches(2)] == [[0, 75, 125]]
    few = Sample(Items(cumulative_sizes=[5, 8]), None, num_images=10)
    assert few.indices == [5, 6, 7]
    assert Sample(Items(cumulative_sizes=[5]), None, num_images=10).indices == []

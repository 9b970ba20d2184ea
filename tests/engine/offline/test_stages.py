"""STAC's stages with a stand-in for training: order, skipping, resuming, refusing; the labeling is real."""

import functools
import gc
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from reference import small_run

from ssod.data import pipelines
from ssod.data.pseudo_coco import read_pseudo_coco
from ssod.engine.config import complete
from ssod.engine.offline import label_command, labeling
from ssod.engine.offline.provenance import hash_config
from ssod.engine.offline.stage_plan import Plan, student_config, teacher_config
from ssod.engine.offline.stages import train_stages
from ssod.engine.records import result
from ssod.engine.stop import StopSignal
from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def data(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with COCO files: two labeled, five unlabeled."""
    root = tmp_path_factory.mktemp("stages")
    small_run.write_images(root / "images")
    small_run.write_coco(root / "labeled.json", ["0.png", "1.png"], boxes=True)
    small_run.write_coco(root / "unlabeled.json", [f"{number}.png" for number in range(2, 7)], boxes=False)
    return root


def config_of(data: Path, **stages: Any) -> Config:
    """A whole STAC config on these images."""
    files = dict(
        data_root=str(data), data_prefix=dict(img="images/"), metainfo=dict(classes=small_run.CLASSES)
    )
    views = pipelines.two_views(pipelines.weak((96, 96)), pipelines.strong((96, 96)))
    unlabeled = dict(
        type="UnlabeledCoco", ann_file="unlabeled.json", pipeline=pipelines.offline(views), **files
    )
    labeled = dict(type="LabeledCoco", ann_file="labeled.json", pipeline=pipelines.labeled((96, 96)), **files)
    tested = labeled | dict(pipeline=pipelines.test((96, 96)), test_mode=True)
    made = Config(
        dict(
            model=small_run.model_config(teacher=False) | dict(method=dict(type="STAC", min_score=0.5)),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type="LabeledUnlabeledSampler", counts=(1, 3)),
                dataset=dict(
                    type="ConcatDataset", datasets=[labeled, dict(type="PseudoLabeled", dataset=unlabeled)]
                ),
            ),
            val_dataloader=dict(batch_size=2, num_workers=0, dataset=tested),
            val_evaluator=dict(type="CocoMetric", ann_file=str(data / "labeled.json")),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
            train_cfg=dict(max_iters=8),
            stages=dict(rounds=1) | stages,
        )
    )
    return complete(made, "test")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what costs seconds and plays no part: formatting configs, asking git, collecting garbage."""

    def dump(config: Config, path: Path) -> None:
        text = "\n".join(f"{name} = {value!r}" for name, value in config.to_dict().items())
        Path(path).write_text(text)

    monkeypatch.setattr(Config, "dump", dump)
    monkeypatch.setattr(result, "git_hash", lambda: "commit")
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


@functools.cache
def network(seed: int) -> Any:
    return small_run.build(teacher=False, seed=seed)


class Trainer:
    """Takes the place of training: notes the call, leaves a result and a checkpoint with another seed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Config, bool]] = []
        self.outcomes: dict[str, Any] = {}  # folder name -> a status, or an exception

    def __call__(self, folder: Path, config: Config, path: Any, resume: bool) -> dict[str, Any]:
        result.check_free(folder, resume)
        self.calls.append((folder.name, config, resume))
        config.randomness.seed = 7 if config.randomness.seed is None else config.randomness.seed  # "drawn"
        outcome = self.outcomes.pop(folder.name, "done")
        if isinstance(outcome, BaseException):
            raise outcome
        (folder / "checkpoints").mkdir(exist_ok=True)
        seed = int(folder.name.split("_")[1])
        small_run.write_checkpoint(folder / "checkpoints" / "last.pth", network(seed))
        record = result.describe(config, path, "toy")
        record.update(status=outcome, seconds=2.0, iterations=config.train_cfg.max_iters)
        record["metrics"] = {"student": {"bbox_mAP": seed / 10}}
        result.write_json(folder / "result.json", record)
        return record

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.calls]


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def run(data: Path, tmp_path: Path, trainer: Trainer) -> Callable[..., dict[str, Any]]:
    """Function: trains in stages in one work dir; `change` edits the config first."""

    def train(resume: Any = False, change: Any = None, **stages: Any) -> dict[str, Any]:
        config = config_of(data, **stages)
        if change is not None:
            change(config)
        return train_stages(tmp_path / "run", config, "stac.py", resume, trainer, StopSignal())

    return train


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


STAGES = ["stage_1_teacher", "stage_2_labels", "stage_3_student"]


# ---------------------------------------------------------------- one run


def test_teacher_labels_student(run: Any, trainer: Trainer, tmp_path: Path, capsys: Any) -> None:
    def largest(config: Config) -> None:
        config.optim_wrapper.clip_grad = dict(max_norm=9.0, norm_type=float("inf"))

    record, out = run(change=largest), tmp_path / "run"
    assert record == result.read_result(out)
    assert trainer.names == ["stage_1_teacher", "stage_3_student"]
    (_, teacher, _), (_, student, _) = trainer.calls
    assert teacher.model.method is None and teacher.train_dataloader.dataset.type == "LabeledCoco"
    assert student.model.method.type == "STAC" and "stages" not in student and "stages" not in teacher
    labels = out / "stage_2_labels" / "pseudo.json"
    assert student.train_dataloader.dataset.datasets[1].labels == str(labels)
    assert [each["name"] for each in record["stages"]] == STAGES
    assert [each["status"] for each in record["stages"]] == ["done"] * 3
    assert record["seconds"] == pytest.approx(sum(each["seconds"] for each in record["stages"]))
    assert (record["method"], record["status"], record["iterations"]) == ("STAC", "done", 8)
    assert record["metrics"] == {"student": {"bbox_mAP": 0.3}} and record["seconds"] > 4
    said = capsys.readouterr().out
    assert "stage 1 of 3, train the teacher" in said and "3 stages in" in said
    again = Config.fromfile(out / "config.py")
    assert again.stages == dict(rounds=1) and again.model.method.type == "STAC"
    assert again.optim_wrapper.clip_grad.norm_type == float("inf")


def test_labels_are_the_teachers(run: Any, data: Path, tmp_path: Path) -> None:
    """The same file as tools/pseudo_label.py writes for that checkpoint and these images.

    But for the hash of the images, the tool's being also of what is in them.
    """
    run()
    found = read_pseudo_coco(tmp_path / "run" / "stage_2_labels" / "pseudo.json")
    assert [image["file_name"] for image in found.images] == [f"{number}.png" for number in range(2, 7)]
    assert all(one["score"] >= 0.5 for one in found.annotations) and len(found.annotations) > 3
    config = config_of(data)
    config.pop("stages")
    config.dump(tmp_path / "config.py")
    label_command.label_with_checkpoint(
        tmp_path / "config.py",
        tmp_path / "run" / "stage_1_teacher" / "checkpoints" / "last.pth",
        data / "unlabeled.json",
        tmp_path / "again.json",
        min_score=0.5,
        image_root=data / "images",
    )
    again = read_pseudo_coco(tmp_path / "again.json")
    assert again.annotations == found.annotations
    one, other = dict(again.provenance or {}), dict(found.provenance or {})
    assert one.pop("split_sha256") != other.pop("split_sha256") and one == other


def test_the_teachers_own_schedule(run: Any, trainer: Trainer) -> None:
    run(teacher=dict(train_cfg=dict(max_iters=3), optim_wrapper=dict(optimizer=dict(lr=0.5))))
    (_, teacher, _), (_, student, _) = trainer.calls
    assert (teacher.train_cfg.max_iters, student.train_cfg.max_iters) == (3, 8)
    assert (teacher.optim_wrapper.optimizer.lr, student.optim_wrapper.optimizer.lr) == (0.5, 0.01)
    assert teacher.train_dataloader.batch_size == 1
    assert tuple(teacher.train_dataloader.sampler.counts) == (1,)


def test_two_rounds_label_again_with_the_student(run: Any, trainer: Trainer, tmp_path: Path) -> None:
    record, out = run(rounds=2), tmp_path / "run"
    assert trainer.names == ["stage_1_teacher", "stage_3_student", "stage_5_student"]
    assert [each["name"] for each in record["stages"]] == [*STAGES, "stage_4_labels", "stage_5_student"]
    assert record["metrics"] == {"student": {"bbox_mAP": 0.5}}
    first, second = (
        read_pseudo_coco(out / name / "pseudo.json") for name in ("stage_2_labels", "stage_4_labels")
    )
    assert first.annotations != second.annotations
    last = trainer.calls[-1][1].train_dataloader.dataset.datasets[1]
    assert last.labels == str(out / "stage_4_labels" / "pseudo.json")


def test_a_second_round_later(run: Any, trainer: Trainer, tmp_path: Path) -> None:
    run()
    trainer.calls.clear()
    assert run(resume=True, rounds=2)["status"] == "done"
    assert trainer.names == ["stage_5_student"]


# ---------------------------------------------------------------- skipped, resumed


def test_a_finished_run_is_not_touched(run: Any, trainer: Trainer, tmp_path: Path) -> None:
    record = run()
    before = files(tmp_path / "run")
    trainer.calls.clear()
    with pytest.raises(UserError, match="holds a finished run"):
        run()
    assert run(resume=True) == record
    assert trainer.calls == [] and files(tmp_path / "run") == before


def test_a_seed_that_is_drawn_is_no_other_config(run: Any, trainer: Trainer, tmp_path: Path) -> None:
    """A training that is asked for no seed draws one into the config it is given."""

    def unseeded(config: Config) -> None:
        config.randomness = dict(seed=None)

    trainer.outcomes["stage_3_student"] = RuntimeError("out of memory")
    with pytest.raises(RuntimeError):
        run(change=unseeded)
    assert trainer.calls[0][1].randomness.seed == 7
    assert run(resume=True, change=unseeded)["status"] == "done"
    assert trainer.names == ["stage_1_teacher", "stage_3_student", "stage_3_student"]


def test_stages_that_are_done_are_skipped_without_being_asked(
    run: Any, trainer: Trainer, tmp_path: Path, capsys: Any
) -> None:
    trainer.outcomes["stage_3_student"] = RuntimeError("out of memory")
    with pytest.raises(RuntimeError):
        run()
    assert (result.read_result(tmp_path / "run") or {})["status"] == "failed"
    labels = tmp_path / "run" / "stage_2_labels" / "pseudo.json"
    written = labels.stat().st_mtime_ns
    trainer.calls.clear()
    capsys.readouterr()
    record = run()
    assert trainer.names == ["stage_3_student"] and labels.stat().st_mtime_ns == written
    assert capsys.readouterr().out.count("done before, skipped") == 2
    assert record["status"] == "done" and "error" not in record
    assert [each["seconds"] for each in record["stages"]][::2] == [2.0, 2.0]


def test_a_training_that_was_stopped_goes_on_inside(run: Any, trainer: Trainer, tmp_path: Path) -> None:
    trainer.outcomes["stage_1_teacher"] = "stopped"
    record = run()
    assert record["status"] == "stopped" and trainer.names == ["stage_1_teacher"]
    assert (result.read_result(tmp_path / "run") or {})["status"] == "stopped"
    with pytest.raises(UserError, match=r"stage_1_teacher holds an unfinished run: add --resume"):
        run()
    trainer.calls.clear()
    assert run(resume=True)["status"] == "done"
    assert [(name, resume) for name, _, resume in trainer.calls] == [
        ("stage_1_teacher", True),
        ("stage_3_student", True),
    ]


def test_labeling_that_was_stopped_goes_on_inside(
    run: Any, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = labeling._Labeler.rows, []

    def rows(self: Any, indices: Any, batch: Any) -> Any:
        seen.append(list(indices))
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, indices, batch)

    monkeypatch.setattr(labeling._Labeler, "rows", rows)
    record = run()
    assert record["status"] == "stopped" and [each["status"] for each in record["stages"]] == [
        "done",
        "stopped",
    ]
    with pytest.raises(UserError, match="add --resume"):
        run()
    assert run(resume=True)["status"] == "done"
    assert seen == [[0, 1], [2, 3], [4]]


# ---------------------------------------------------------------- refused


def replace_checkpoint(out: Path) -> None:
    small_run.write_checkpoint(out / "stage_1_teacher" / "checkpoints" / "last.pth", network(3))


def edit_labels(out: Path) -> None:
    path = out / "stage_2_labels" / "pseudo.json"
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))


def nothing(_: Any) -> None:
    return None


def learning_rate(config: Config) -> None:
    config.optim_wrapper.optimizer.lr = 0.5


def threshold(config: Config) -> None:
    config.model.method.min_score = 0.6


def weight(config: Config) -> None:
    config.model.method.unsup_weight = 1.0


def fewer_labeled(config: Config) -> None:
    config.train_dataloader.dataset.datasets[0].only_ids = [1]


def fewer_unlabeled(config: Config) -> None:
    config.train_dataloader.dataset.datasets[1].dataset.only_ids = [1, 2, 3]


MISMATCHES = [
    (learning_rate, nothing, "stage_1_teacher was trained with another config"),
    (fewer_labeled, nothing, "stage_1_teacher was trained with another config"),
    (nothing, replace_checkpoint, r"pseudo.json holds other labels \(of another checkpoint\)"),
    (threshold, nothing, r"holds other labels \(with min_score 0.5, not 0.6\)"),
    (fewer_unlabeled, nothing, r"holds other labels \(of other images\)"),
    (nothing, edit_labels, "stage_3_student was trained with other pseudo labels"),
    (weight, nothing, "stage_3_student was trained with another config"),
]


@pytest.mark.parametrize(("change", "spoil", "said"), MISMATCHES, ids=[row[2][:50] for row in MISMATCHES])
def test_what_does_not_match_is_refused(
    run: Any, trainer: Trainer, tmp_path: Path, change: Any, spoil: Any, said: str
) -> None:
    run()
    spoil(tmp_path / "run")
    before = files(tmp_path / "run")
    trainer.calls.clear()
    with pytest.raises(UserError, match=said) as caught:
        run(resume=True, change=change)
    assert "\n" not in str(caught.value) and "remove it" in str(caught.value)
    assert trainer.calls == [] and files(tmp_path / "run") == before


def test_other_labeled_images_under_the_same_name_are_refused(
    run: Any, data: Path, trainer: Trainer, tmp_path: Path
) -> None:
    run()
    path = data / "labeled.json"
    before = path.read_text()
    try:
        small_run.write_coco(path, ["0.png", "3.png"], boxes=True)
        with pytest.raises(UserError, match="stage_1_teacher was trained with other labeled images"):
            run(resume=True)
    finally:
        path.write_text(before)


def test_another_machine_is_no_other_config() -> None:
    here = {
        "data_root": "/here",
        "num_workers": 2,
        "optimizer": {"lr": 1, "fused": True},
        "weights": "/a/w.pth",
    }
    there = {"data_root": "data", "num_workers": 0, "optimizer": {"lr": 1}, "weights": "/b/w.pth"}
    assert hash_config(here) == hash_config(there)
    assert hash_config(here) != hash_config({**there, "weights": "/b/other.pth"})
    assert hash_config({"counts": (1, 4)}) == hash_config({"counts": [1, 4]})


def test_a_folder_of_an_ordinary_run_is_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="holds a run without stages"):
        run()
    with pytest.raises(UserError, match="with --resume alone"):
        run(resume="some.pth")


def drop_method(config: Config) -> None:
    config.model.method = None


def name_labels(config: Config) -> None:
    config.train_dataloader.dataset.datasets[1].labels = "mine.json"


def plain_images(config: Config) -> None:
    config.train_dataloader.dataset.datasets[1].type = "UnlabeledCoco"


def hide_boxes(config: Config) -> None:
    config.model.detector.test_cfg.rcnn.score_thr = 0.2
    config.model.method.min_score = dict(type="IgnoreBand", low=0.15, high=0.5)


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (
        nothing,
        dict(min_score=0.01),
        r"FasterRCNN: score_thr=0\.05 .* \(scores above 0\.01\): set it to 0\.01",
    ),
    (hide_boxes, {}, r"score_thr=0\.2 .*\(scores above 0\.15"),
    (nothing, dict(round=2), "no option 'round'; did you mean rounds"),
    (nothing, dict(rounds=0), "at least 1"),
    (nothing, dict(min_score=0.7), "lower the first"),
    (nothing, dict(teacher=dict(train_cgf=dict())), "nothing reads the name 'train_cgf'"),
    (drop_method, {}, "a method that learns from labels in a file"),
    (name_labels, {}, "labels=mine.json, which stages would write"),
    (plain_images, {}, "then a PseudoLabeled"),
]


@pytest.mark.parametrize(("change", "stages", "said"), WRONG, ids=[row[2] for row in WRONG])
def test_a_wrong_plan_is_one_line(run: Any, tmp_path: Path, change: Any, stages: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        run(change=change, **stages)
    assert "\n" not in str(caught.value)


def test_a_file_may_keep_more_than_the_method_uses(data: Path) -> None:
    assert Plan.of(config_of(data)).min_score == 0.5
    assert Plan.of(config_of(data, min_score=0.1)).min_score == 0.1


def test_making_the_stages_configs_leaves_the_config_alone(data: Path) -> None:
    config = config_of(data)
    before = config.to_dict()
    teacher_config(config, {"train_cfg": {"max_iters": 1}})
    student_config(config, Path("labels.json"))
    assert config.to_dict() == before

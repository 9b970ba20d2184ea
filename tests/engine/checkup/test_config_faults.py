"""One planted fault in the config or the machine at a time: exactly its finding, with severity and place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ...reference.doctor_world import World

pytestmark = pytest.mark.usefixtures("registered", "no_collection")


def model(world: World, **changes: Any) -> None:
    world.config["model"].update(changes)


def method(world: World, **changes: Any) -> None:
    world.config["model"]["method"].update(changes)


def backbone(world: World, **changes: Any) -> None:
    world.config["model"]["detector"]["backbone"].update(changes)


def train(world: World, **changes: Any) -> None:
    world.config["train_dataloader"].update(changes)


def counts(world: World, *values: int) -> None:
    """Counts, and a batch that is their sum."""
    train(world, batch_size=sum(values), sampler=dict(type="LabeledUnlabeledSampler", counts=values))


def optimizer(world: World, **changes: Any) -> None:
    world.config["optim_wrapper"]["optimizer"].update(changes)


def scheduler(world: World, number: int, **changes: Any) -> None:
    world.config["param_scheduler"][number].update(changes)


def classes(world: World, part: str, *names: str) -> None:
    world.dataset(part)["metainfo"] = dict(classes=names)


def without_validation(world: World) -> None:
    for name in ("val_dataloader", "val_evaluator", "val_cfg"):
        del world.config[name]


def views(world: World, weak: list[Any] | None = None, strong: list[Any] | None = None) -> None:
    """Adds transforms before the packing of a view."""
    both = world.dataset("unlabeled")["pipeline"][1]
    for name, more in (("weak", weak), ("strong", strong)):
        if more:
            both[name] = [*both[name][:-1], *more, both[name][-1]]


def same_views(world: World) -> None:
    both = world.dataset("unlabeled")["pipeline"][1]
    both["strong"] = both["weak"]


def one_source(world: World) -> None:
    """The labeled images alone."""
    train(world, dataset=world.dataset("labeled"), batch_size=2)
    world.config["train_dataloader"]["sampler"]["counts"] = (2,)


def offline(world: World, labels: str | None) -> None:
    from ssod.data.pipelines import pseudo_labeled

    sources = world.config["train_dataloader"]["dataset"]["datasets"]
    sources[1] = {**pseudo_labeled(sources[1]), "labels": labels}
    model(world, method=dict(type="STAC"), teacher=None)


def one_stage(world: World) -> None:
    """The config of a one-stage detector with a bound on its scores, as the doctor reads it."""
    head = dict(type="RetinaHead", num_classes=2)
    model(world, detector=dict(type="RetinaNet", bbox_head=head, test_cfg=dict(score_thr=0.3)))
    model(world, method=dict(type="FixMatch", min_score=0.29, labeler="teacher"))


def bad_stages(world: World) -> None:
    world.config["stages"] = dict(rounds=0)
    offline(world, None)


ALBU_SHIFT = dict(type="Albu", transforms=[dict(type="OneOf", transforms=[dict(type="ShiftScaleRotate")])])
ALBU_BLUR = dict(type="Albu", transforms=[dict(type="Blur", p=0.5)])
Fault = tuple[Callable[[World], Any], str, str, str]  # what is done, severity, code, place
FAULTS: list[Fault] = [
    (lambda w: w.config.update(max_iterations=5), "fails", "unknown-name", "run.py"),
    (lambda w: w.config.update(resume=True), "fails", "unknown-name", "run.py"),
    (lambda w: w.config.pop("val_evaluator"), "fails", "config-incomplete", "run.py"),
    (without_validation, "hurts", "no-validation", "run.py"),
    (lambda w: scheduler(w, 0, by_epoch=True), "fails", "schedule-not-in-iterations", "run.py"),
    (lambda w: w.config["train_cfg"].update(by_epoch=True), "fails", "schedule-not-in-iterations", "run.py"),
    (
        lambda w: w.config["train_cfg"].update(max_iters="10k"),
        "fails",
        "schedule-not-in-iterations",
        "run.py",
    ),
    (
        lambda w: w.config["train_cfg"].update(val_interval="x"),
        "fails",
        "schedule-not-in-iterations",
        "run.py",
    ),
    (lambda w: optimizer(w, lr="a"), "fails", "value-refused", "run.py"),
    (lambda w: w.config["optim_wrapper"].update(clip_grad=10), "fails", "value-refused", "run.py"),
    (lambda w: scheduler(w, 0, begin=None), "fails", "value-refused", "run.py"),
    (lambda w: model(w, teacher=dict(type="EMATeacher", decay="a")), "fails", "value-refused", "run.py"),
    (lambda w: train(w, batch_size=5), "fails", "batch-not-sum-of-counts", "train_dataloader"),
    (lambda w: counts(w, 4), "fails", "counts-not-of-sources", "counts"),
    (lambda w: counts(w, 4, 0), "fails", "source-without-slot", "counts"),
    (lambda w: counts(w, 5, 2), "hurts", "more-slots-than-images", "labeled"),
    (
        lambda w: w.config["model"]["detector"]["roi_head"]["bbox_head"].update(num_classes=3),
        "fails",
        "num-classes",
        "model.detector",
    ),
    (lambda w: classes(w, "unlabeled", "nut", "bolt"), "fails", "classes-differ", "unlabeled"),
    (lambda w: classes(w, "val", "bolt"), "lies", "classes-differ", "val"),
    (
        lambda w: w.config["val_evaluator"].update(ann_file=w.config["test_evaluator"]["ann_file"]),
        "lies",
        "evaluator-of-other-file",
        "val_evaluator",
    ),
    (lambda w: w.dataset("val").update(indices=2), "lies", "evaluator-counts-more", "val_evaluator"),
    (lambda w: w.dataset("test").update(only_ids=[301]), "lies", "evaluator-counts-more", "test_evaluator"),
    (
        lambda w: w.dataset("val").update(test_mode=False, filter_cfg=dict(min_size=9)),
        "lies",
        "evaluation-filters-images",
        "val",
    ),
    (lambda w: w.config.update(load_from="gone.pth"), "fails", "weights-missing", "load_from"),
    (lambda w: w.config.update(load_from="https://a.invalid/b.pth"), "fails", "weights-missing", "load_from"),
    (
        lambda w: backbone(w, init_cfg=dict(type="Pretrained", checkpoint="gone.pth")),
        "fails",
        "weights-missing",
        "backbone.init_cfg",
    ),
    (
        lambda w: backbone(w, init_cfg=dict(type="Pretrained", checkpoint="https://nowhere.invalid/a.pth")),
        "note",
        "weights-from-network",
        "init_cfg.checkpoint",
    ),
    (lambda w: backbone(w, frozen_stages=1), "hurts", "random-weights-frozen", "backbone"),
    (lambda w: optimizer(w, lr=0.1), "hurts", "learning-rate-not-scaled", "lr"),
    (lambda w: optimizer(w, lr=1e-5), "hurts", "learning-rate-not-scaled", "lr"),
    (
        lambda w: (
            optimizer(w, type="AdamW", lr=0.01),
            w.config["optim_wrapper"]["optimizer"].pop("momentum"),
        ),
        "hurts",
        "learning-rate-of-adam",
        "lr",
    ),
    (
        lambda w: (w.config["optim_wrapper"].pop("clip_grad"), optimizer(w, lr=0.001)),
        "hurts",
        "no-gradient-clipping",
        "optim_wrapper",
    ),
    (
        lambda w: scheduler(w, 1, milestones=[700, 1000]),
        "hurts",
        "milestone-not-reached",
        "param_scheduler.1",
    ),
    (
        lambda w: scheduler(w, 1, begin=2000, milestones=[]),
        "hurts",
        "milestone-not-reached",
        "param_scheduler.1",
    ),
    (lambda w: scheduler(w, 0, end=5000), "hurts", "schedule-cut-off", "param_scheduler.0"),
    (
        lambda w: method(w, unsup_weight=dict(value=1.0, start=1000)),
        "lies",
        "unsupervised-loss-off",
        "unsup_weight",
    ),
    (lambda w: method(w, unsup_weight=0.0), "lies", "unsupervised-loss-off", "unsup_weight"),
    (
        lambda w: method(w, unsup_weight=dict(value=1.0, length=900)),
        "hurts",
        "unsupervised-loss-late",
        "unsup_weight",
    ),
    (lambda w: method(w, unsup_weight=4.0), "hurts", "unsupervised-weight-high", "unsup_weight"),
    (one_source, "lies", "method-without-unlabeled", "train_dataloader"),
    (lambda w: model(w, method=None), "hurts", "unlabeled-without-method", "model.method"),
    (lambda w: model(w, teacher=dict(type="EMATeacher", decay=0.999)), "hurts", "teacher-lags", "decay"),
    (
        lambda w: model(w, teacher=dict(type="EMATeacher", decay=0.997, ramp=False)),
        "hurts",
        "teacher-lags",
        "decay",
    ),
    (lambda w: model(w, teacher=dict(type="EMATeacher", decay=1.0)), "lies", "teacher-never-moves", "decay"),
    (
        lambda w: model(w, teacher=dict(type="FrozenTeacher")),
        "lies",
        "frozen-teacher-random",
        "model.teacher",
    ),
    (lambda w: w.config["train_cfg"].update(val_interval=2000), "note", "one-validation", "val_interval"),
    (lambda w: method(w, cls_min_score=1.0), "lies", "bound-never-reached", "model.method"),
    (lambda w: method(w, floor=0.2, rpn_min_score=0.4), "hurts", "bound-near-chance", "model.method"),
    (lambda w: method(w, floor=0.8, cls_min_score=0.7), "hurts", "bound-below-floor", "model.method"),
    (
        lambda w: method(w, floor=0.8, cls_min_score=dict(type="IgnoreBand", low=0.5, high=0.7)),
        "hurts",
        "bound-below-floor",
        "model.method",
    ),
    (lambda w: views(w, strong=[dict(type="RandomAffine")]), "lies", "untracked-geometry", "strong"),
    (
        lambda w: views(w, weak=[dict(type="RandomOrder", transforms=[dict(type="Expand")])]),
        "lies",
        "untracked-geometry",
        "weak",
    ),
    (lambda w: views(w, strong=[ALBU_SHIFT]), "lies", "untracked-geometry", "strong"),
    (same_views, "hurts", "views-alike", "unlabeled"),
    (lambda w: offline(w, None), "fails", "pseudo-labels-missing", "train_dataloader"),
    (lambda w: offline(w, "gone.json"), "fails", "pseudo-labels-missing", "train_dataloader"),
    (bad_stages, "fails", "stages-refused", "stages"),
]


def set_up(world: World, world_size: int | None = None) -> Any:
    """The setup that `examine` makes."""
    from ssod.data.doctor import read_parts
    from ssod.engine.commands import doctor

    setup = doctor.set_up(world.save(), {}, world.folder / "out", world_size)
    return replace(setup, parts=read_parts(setup.config)[0])


def found(world: World, world_size: int | None = None) -> list[Any]:
    """The findings about the config."""
    from ssod.engine.commands.doctor import check_config

    return check_config(set_up(world, world_size))


def test_nothing_is_found_in_a_healthy_config(tmp_path: Path) -> None:
    assert found(World(tmp_path)) == []


@pytest.mark.parametrize(
    ("break_it", "severity", "code", "place"), FAULTS, ids=[f"{row[2]}-{row[3]}" for row in FAULTS]
)
def test_exactly_the_planted_fault_is_found(
    break_it: Callable[[World], Any], severity: str, code: str, place: str, tmp_path: Path
) -> None:
    world = World(tmp_path)
    break_it(world)
    findings = found(world)
    assert [(one.severity, one.code) for one in findings] == [(severity, code)]
    assert place in findings[0].where and findings[0].mend


def test_a_refused_value_is_said_once_in_the_words_of_training(tmp_path: Path) -> None:
    from ssod.engine.config import load_config
    from ssod.errors import UserError

    def break_counts(world: World) -> None:
        train(world, sampler=dict(type="LabeledUnlabeledSampler", counts=8))

    breaks: list[Callable[[World], Any]] = [
        lambda w: train(w, num_workers="a"),
        lambda w: w.config["train_cfg"].update(max_iters="10k"),
        break_counts,
    ]
    for number, break_it in enumerate(breaks):
        world = World(tmp_path / str(number))
        break_it(world)
        with pytest.raises(UserError) as caught:
            load_config(world.save())
        findings = [one for one in machine_findings(world, machine()) if one.severity != "fact"]
        assert [(one.severity, one.what) for one in findings] == [("fails", str(caught.value))]


def test_no_sampler_is_mmengine_s_own_and_no_fault(tmp_path: Path) -> None:
    world = World(tmp_path)
    one_source(world)
    train(world, sampler=None)
    model(world, method=None)
    assert found(world) == []


def test_a_bound_on_a_one_stage_detectors_scores(tmp_path: Path) -> None:
    world = World(tmp_path)
    one_stage(world)
    codes = {one.code: one for one in found(world)}
    assert codes["score-threshold-hides-boxes"].severity == "fails"
    method(world, min_score=0.9)
    assert found(world) == []


def test_all_unknown_names_are_found_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.config.update(max_iterations=5, test_cfg=dict(), evaluators=3)
    assert [one.code for one in found(world)] == ["unknown-name"] * 3


def test_colour_through_albu_is_tracked_well_enough(tmp_path: Path) -> None:
    world = World(tmp_path)
    views(world, strong=[ALBU_BLUR])
    assert found(world) == []


def test_the_rate_scales_with_the_processes(tmp_path: Path) -> None:
    """Published: 0.01 on 8 x 5 images. On one process without clipping it is 8 times too high."""
    world = World(tmp_path)
    counts(world, 1, 4)
    optimizer(world, lr=0.01)
    del world.config["optim_wrapper"]["clip_grad"]
    rates = [one for one in found(world, 1) if one.code == "learning-rate-not-scaled"]
    assert len(rates) == 1 and rates[0].values["ratio"] == pytest.approx(8)
    assert "learning-rate-not-scaled" not in [one.code for one in found(world, 8)]


def test_an_evaluator_on_a_copy_of_the_file_is_right(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.save()
    (tmp_path / "copy.json").write_bytes((tmp_path / "val.json").read_bytes())
    world.config["val_evaluator"]["ann_file"] = str(tmp_path / "copy.json")
    assert found(world) == []


# ---------------------------------------------------------------- the machine

GIB = 2**30
MachineFault = tuple[dict[str, Any], Callable[[World], Any], str, str, str]
MACHINE_FAULTS: list[MachineFault] = [
    (
        dict(installed={"mmdet": "3.3.0", "onedl-mmdetection": "3.5.1"}),
        id,
        "fails",
        "conflicting-installs",
        "environment",
    ),
    (
        dict(installed={"mmcv-lite": "2.1.0", "onedl-mmcv": "2.3.6"}),
        id,
        "fails",
        "conflicting-installs",
        "environment",
    ),
    (dict(has_driver=True, gpus=()), id, "hurts", "gpu-not-usable", "environment"),
    (
        dict(gpus=()),
        lambda w: w.config["train_cfg"].update(max_iters=90_000),
        "note",
        "long-without-gpu",
        "max_iters",
    ),
    (
        dict(gpus=()),
        lambda w: w.config["optim_wrapper"].update(precision="float16"),
        "fails",
        "float16-without-gpu",
        "precision",
    ),
    (dict(cores=2), lambda w: train(w, num_workers=8), "note", "more-workers-than-cores", "num_workers"),
    (dict(shm=300_000), id, "fails", "shared-memory-small", "/dev/shm"),
    (dict(disk=GIB), id, "hurts", "disk-full", "out"),
    (dict(disk=GIB // 10), id, "fails", "disk-full", "out"),
    (dict(writable=False), id, "fails", "work-dir-not-writable", "out"),
    ({}, lambda w: taken(w.folder / "out"), "fails", "work-dir-taken", "out"),
]


def taken(work_dir: Path) -> None:
    """A finished run in the work dir."""
    work_dir.mkdir()
    (work_dir / "result.json").write_text('{"status": "done"}')


def machine(**changes: Any) -> Any:
    """A healthy machine, but for the changes."""
    from ssod.engine.checkup.machine import Machine

    healthy = Machine(
        installed={"onedl-mmdetection": "3.5.1", "onedl-mmengine": "0.10.12", "onedl-mmcv": "2.3.6"},
        gpus=(("a GPU", 80 * GIB),),
        has_driver=False,
        cores=16,
        shm=8 * GIB,
        disk=100 * GIB,
        kernels="torchvision",
        writable=True,
    )
    return replace(healthy, **changes)


def machine_findings(world: World, here: Any) -> list[Any]:
    from ssod.engine.commands.doctor import check_config

    return check_config(set_up(world, 1), here)


def test_a_healthy_machine_is_described_and_nothing_else(tmp_path: Path) -> None:
    findings = machine_findings(World(tmp_path), machine())
    assert [(one.severity, one.code) for one in findings] == [
        ("fact", "versions"),
        ("fact", "device"),
        ("fact", "kernels"),
    ]
    values = {one.code: one.values for one in findings}
    assert values["versions"]["torch"] and "onedl-mmcv" in values["versions"]["distributions"]
    assert values["device"]["gpus"] == [["a GPU", 80 * GIB]] and values["device"]["cores"] == 16
    assert values["kernels"]["kernels"] == "torchvision"


@pytest.mark.parametrize(
    ("changes", "break_it", "severity", "code", "place"),
    MACHINE_FAULTS,
    ids=[f"{row[3]}-{row[2]}" for row in MACHINE_FAULTS],
)
def test_exactly_the_fault_of_the_machine_is_found(
    changes: dict[str, Any],
    break_it: Callable[[World], Any],
    severity: str,
    code: str,
    place: str,
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    break_it(world)
    findings = [one for one in machine_findings(world, machine(**changes)) if one.severity != "fact"]
    assert [(one.severity, one.code) for one in findings] == [(severity, code)]
    assert place in findings[0].where and findings[0].mend


def test_shared_memory_needed_is_that_of_the_prefetched_batches(tmp_path: Path) -> None:
    """One worker, two prefetched batches and one in the making, 4 images of two views of 96 x 96 x 3."""
    need = 1 * 3 * 4 * 2 * 96 * 96 * 3
    for free, codes in ((need, []), (need - 1, ["shared-memory-small"])):
        world = World(tmp_path / str(free))
        findings = machine_findings(world, machine(shm=free))
        assert [one.code for one in findings if one.severity != "fact"] == codes


def test_this_machine(tmp_path: Path) -> None:
    import torch

    from ssod.engine.checkup.machine import Machine

    here = Machine.here(tmp_path / "not" / "yet")
    assert here.kernels in ("mmcv", "torchvision") and here.writable and here.cores >= 1
    assert len(here.gpus) == torch.cuda.device_count()
    assert here.installed["numpy"] and here.disk is not None and here.disk > 0


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ("open-mmlab://detectron2/resnet50_caffe", r"https://.*/resnet50_msra-5891d200\.pth"),
        ("torchvision://resnet18", r"https://download\.pytorch\.org/models/resnet18-\w+\.pth"),
        ("https://nowhere.invalid/a.pth?x=1", None),
    ],
)
def test_weights_from_the_network_are_named_with_their_address_and_place(
    named: str, address: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place is mmengine's own: once a file lies there, nothing is downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    world = World(tmp_path)
    backbone(world, init_cfg=dict(type="Pretrained", checkpoint=named))
    [finding] = found(world)
    match = re.search(f" from ({address})$" if address else "^(https.*) is downloaded", finding.what)
    assert match is not None and named in finding.what
    name = match[1].rpartition("/")[2].partition("?")[0]
    place = tmp_path / "torch/hub/checkpoints" / name
    assert f"download it elsewhere to {place}, or give a local file" in finding.mend
    place.parent.mkdir(parents=True)
    place.touch()
    assert found(world) == []

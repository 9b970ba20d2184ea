"""Every config loads, names nothing unknown, builds, agrees with itself; COCO's hold the published values."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config

from ssod.models.jitter import BoxJitter
from ssod.models.supported import two_stage_fault

PROJECT = Path(__file__).resolve().parents[1]
CONFIGS = PROJECT / "configs"
EXPERIMENTS = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.glob("*/*.py")
    if path.parent.name not in ("_base_", "sweeps")
)
COCO = [name for name in EXPERIMENTS if "/coco_" in name]

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(autouse=True)
def roots(monkeypatch: pytest.MonkeyPatch, data_root: Path, weights_root: Path) -> None:
    """The environment that the configs read when they are loaded."""
    from mmengine.registry import init_default_scope

    monkeypatch.setenv("SSOD_DATA_ROOT", str(data_root))
    monkeypatch.setenv("SSOD_WEIGHTS_ROOT", str(weights_root))
    init_default_scope("ssod")


def load(name: str) -> Config:
    """The config as tools/train.py gets it: checked for unknown names, and completed."""
    from ssod.engine.config import load_config

    return load_config(CONFIGS / f"{name}.py")


def build_model(config: Config) -> Any:
    from ssod.registry import MODELS

    return MODELS.build(config.model)


def build_method(config: Config) -> Any:
    from ssod.registry import METHODS

    return METHODS.build(config.model.method)


def sources(config: Config) -> list[Any]:
    """The configs of the training datasets, in the sampler's order; images alone where a file labels them."""
    dataset = config.train_dataloader.dataset
    parts = dataset.datasets if dataset.type == "ConcatDataset" else [dataset]
    return [part.dataset if part.type == "PseudoLabeled" else part for part in parts]


def test_there_is_a_config_for_each_method_and_data_set() -> None:
    data = {"shapes", "bccd_10", "coco_1", "coco_2", "coco_5", "coco_10", "coco_full"}
    for method in ("supervised", "soft_teacher", "mean_teacher", "fixmatch", "unbiased_teacher"):
        names = {Path(name).name for name in EXPERIMENTS if name.startswith(f"{method}/")}
        # Full COCO was published for Soft Teacher alone.
        assert data - ({"coco_full"} if method not in ("supervised", "soft_teacher") else set()) <= names


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_builds_through_the_registry(name: str) -> None:
    model = build_model(load(name))
    method, _ = name.split("/")
    assert (model.method is None) == (method == "supervised")
    if model.method is not None:
        assert type(model.method).__name__.lower() == method.replace("_", "")
    student = sum(each.numel() for each in model.student.parameters())
    assert student > 1e6
    if model.teacher is not None:
        assert sum(each.numel() for each in model.teacher.parameters()) == student
        assert not any(each.requires_grad for each in model.teacher.parameters())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_agrees_with_itself(name: str) -> None:
    config = load(name)
    loader, parts = config.train_dataloader, sources(config)
    assert len(loader.sampler.counts) == len(parts)
    assert sum(loader.sampler.counts) == loader.batch_size
    unlabeled = "UnlabeledImages" if name.endswith("/own_data") else "UnlabeledCoco"
    assert [part.type for part in parts] == ["LabeledCoco", unlabeled][: len(parts)]
    assert len(parts) == (1 if name.startswith("supervised/") else 2)
    validated = [config[key].dataset for key in ("val_dataloader", "test_dataloader") if key in config]
    classes = {tuple(each.metainfo.classes) for each in [*parts, *validated]}
    assert classes == {tuple(config.classes)}
    detector = config.model.detector
    assert (detector.get("roi_head") or detector).bbox_head.num_classes == len(config.classes)
    dense = detector.get("rpn_head") or detector.bbox_head
    assert detector.neck.num_outs == len((dense.get("anchor_generator") or dense).strides)
    warm, *_ = config.param_scheduler
    assert warm.end < config.train_cfg.max_iters == max(each.end for each in config.param_scheduler)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_file_names_no_place_on_some_machine(name: str, tmp_path: Path) -> None:
    for path in [CONFIGS / f"{name}.py", *CONFIGS.glob("_base_/*/*.py")]:
        text = path.read_text()
        assert not re.search(r"""["']/""", text), f"{path} holds an absolute path"
        assert "resume=True" not in text, path
    config = load(name)
    config.dump(tmp_path / "again.py")  # the resolved file runs again as it is
    assert Config.fromfile(tmp_path / "again.py").model == config.model


@pytest.mark.parametrize("name", ["supervised/bccd_10", "soft_teacher/bccd_10", "stac/bccd_10"])
def test_data_of_bccd(name: str, data_root: Path) -> None:
    """Real datasets: 20 + 185 images of train.json, disjoint; val and test are other files."""
    from ssod.registry import DATASETS

    config = load(name)
    parts = [DATASETS.build(part) for part in sources(config)]
    ids = [{part.get_data_info(index)["img_id"] for index in range(len(part))} for part in parts]
    assert [len(each) for each in ids] == [20, 185][: len(parts)]
    assert len(set.union(*ids)) == sum(len(each) for each in ids)
    assert len(DATASETS.build(config.val_dataloader.dataset)) == 87
    assert len(DATASETS.build(config.test_dataloader.dataset)) == 72
    for kind in ("val", "test"):
        assert config[f"{kind}_evaluator"].ann_file == str(data_root / "bccd" / f"{kind}.json")


def test_own_data_names_the_classes_once(tmp_path: Path) -> None:
    """Another list in a config above reaches all datasets; the twin sees the same labeled images."""
    semi, twin = load("soft_teacher/own_data"), load("supervised/own_data")
    assert sources(semi)[0] == sources(twin)[0] and semi.train_cfg == twin.train_cfg
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = [{str(CONFIGS / 'soft_teacher/own_data.py')!r}]\nclasses = ('a', 'b', 'c')\n")
    from ssod.engine.config import load_config

    config = load_config(path)
    for part in (*sources(config), config.val_dataloader.dataset):
        assert part.metainfo == dict(classes=("a", "b", "c"))


STAC = [name for name in EXPERIMENTS if name.startswith("stac/")]


def test_stac_has_a_config_for_each_share() -> None:
    assert {Path(name).name for name in STAC} == {
        "shapes",
        "bccd_10",
        "coco_1",
        "coco_2",
        "coco_5",
        "coco_10",
    }


@pytest.mark.parametrize("name", STAC)
def test_stac_trains_in_stages_on_what_the_others_train_on(name: str) -> None:
    """The teacher is the supervised twin; the student sees Soft Teacher's images and strong views."""
    from ssod.engine.offline.stage_plan import Plan, teacher_config

    config, data = load(name), Path(name).name
    plan = Plan.of(config)
    assert (plan.rounds, plan.min_score) == (1, config.model.method.get("min_score", 0.9))
    teacher, twin = teacher_config(config, plan.teacher), load(f"supervised/{data}")
    for key in ("train_cfg", "param_scheduler", "optim_wrapper"):
        assert teacher[key] == twin[key]
    assert teacher.model.detector == twin.model.detector
    assert teacher.model.method is teacher.model.teacher is config.model.teacher is None
    assert sources(teacher) == sources(twin)
    assert teacher.train_dataloader.batch_size == twin.train_dataloader.batch_size
    labeled, unlabeled = sources(config)
    other_labeled, other = sources(load(f"soft_teacher/{data}"))
    assert labeled == other_labeled
    assert {**unlabeled, "pipeline": None} == {**other, "pipeline": None}
    [views] = [step for step in other.pipeline if step["type"] == "TwoViews"]
    assert unlabeled.pipeline[1:-2] == views["strong"][:-1]
    assert [step["type"] for step in unlabeled.pipeline[-2:]] == ["PlaceOfflineLabels", "PackView"]


@pytest.mark.parametrize("percent", ["1", "2", "5", "10"])
def test_stac_on_coco_is_the_published_recipe(percent: str) -> None:
    """What coco_10.py says is kept (arXiv 2005.04757 and its released scripts)."""
    config = load(f"stac/coco_{percent}")
    model = build_model(config)
    assert [model.method.unsup_weight(step) for step in (0, 180_000)] == [2.0, 2.0]
    assert model.method.selection.floor == 0.9
    assert tuple(config.train_dataloader.sampler.counts) == (1, 1)
    assert config.train_cfg.max_iters == 180_000 and config.optim_wrapper.optimizer.lr == 0.01
    _, steps = config.param_scheduler
    assert steps.milestones == [120_000, 160_000]
    split = f"semi_anns/instances_train2017.1@{percent}"
    assert [part.ann_file for part in sources(config)] == [f"{split}.json", f"{split}-unlabeled.json"]


def test_labeled_images_of_bccd_are_the_draw_that_the_config_tells_of(data_root: Path) -> None:
    content = json.loads((data_root / "bccd" / "train.json").read_text())
    ids = [image["id"] for image in content["images"]]
    drawn = np.random.default_rng(0).choice(ids, size=20, replace=False)
    [labeled] = sources(load("supervised/bccd_10"))
    assert sorted(drawn.tolist()) == list(labeled.only_ids)
    boxes = [one["category_id"] for one in content["annotations"] if one["image_id"] in set(drawn)]
    assert np.bincount(boxes)[1:].tolist() == [235, 22, 22]  # every class has some


# percent -> λ_u, images labeled and unlabeled per GPU, iterations, milestones (arXiv 2106.09018; METHODS)
PUBLISHED = {
    "1": (4.0, (1, 4), 180_000, [120_000, 160_000]),
    "2": (4.0, (1, 4), 180_000, [120_000, 160_000]),
    "5": (4.0, (1, 4), 180_000, [120_000, 160_000]),
    "10": (4.0, (1, 4), 180_000, [120_000, 160_000]),
    "full": (2.0, (4, 4), 720_000, [480_000, 640_000]),
}


@pytest.mark.parametrize(("percent", "published"), PUBLISHED.items())
def test_soft_teacher_on_coco_is_the_published_recipe(percent: str, published: Any) -> None:
    config = load(f"soft_teacher/coco_{percent}")
    unsup_weight, counts, iterations, milestones = published
    model = build_model(config)
    method = model.method
    assert [method.unsup_weight(step) for step in (0, 1, iterations)] == [unsup_weight] * 3
    assert (method.floor, method.for_rpn.min_score, method.for_class.min_score) == (0.5, 0.9, 0.9)
    assert (method.box_selection, method.box_max_spread) == ("spread", 0.02)
    assert method.jitter == BoxJitter(10, 0.06, jitter="normal", spread_norm="code")
    assert (method.reliability, method.weights) == ("teacher_background", "code")
    assert (model.policy.decay, model.policy.ramp) == (0.999, True)
    assert tuple(config.train_dataloader.sampler.counts) == counts
    assert config.train_cfg.max_iters == iterations
    warm, steps = config.param_scheduler
    assert (warm.type, warm.start_factor, warm.begin, warm.end) == ("LinearLR", 0.001, 0, 500)
    assert (steps.type, steps.milestones, steps.gamma) == ("MultiStepLR", milestones, 0.1)
    assert config.optim_wrapper.optimizer == dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4)
    assert config.optim_wrapper.precision == "float16" and "clip_grad" not in config.optim_wrapper
    assert model.student.test_cfg.rcnn.score_thr == 0.05
    backbone = model.student.backbone
    assert (backbone.depth, backbone.style, backbone.frozen_stages) == (50, "caffe", 1)
    assert backbone.init_cfg["checkpoint"] == "open-mmlab://detectron2/resnet50_caffe"
    norms = [each for each in backbone.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    model.train()
    assert norms and not any(each.training or each.weight.requires_grad for each in norms)
    preprocessor = model.data_preprocessor
    assert preprocessor.mean.flatten().tolist() == pytest.approx([103.53, 116.28, 123.675])
    assert preprocessor.std.flatten().tolist() == [1.0, 1.0, 1.0]
    assert not preprocessor._channel_conversion and preprocessor.pad_size_divisor == 32


@pytest.mark.parametrize("data", ["shapes", "coco_10"])
def test_rungs_of_the_ladder_are_one_line_apart(data: str) -> None:
    """Box jittering away, then the soft background weights: what is left are the teacher's hard labels."""
    top, middle, bottom = (load(f"soft_teacher/{data}{rung}") for rung in ("", "_no_jitter", "_hard_labels"))
    top.model.method.box_selection = "score"
    assert top.model == middle.model
    middle.model.method.reliability = "none"
    assert middle.model == bottom.model
    for key in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "custom_hooks"):
        assert top.get(key) == middle.get(key) == bottom.get(key)


@pytest.mark.parametrize("percent", PUBLISHED)
def test_coco_files_and_the_supervised_twin(percent: str) -> None:
    """The names of the published splits; the baseline sees the same labeled images in the same way."""
    twin, semi = load(f"supervised/coco_{percent}"), load(f"soft_teacher/coco_{percent}")
    [labeled], [semi_labeled, unlabeled] = sources(twin), sources(semi)
    assert labeled == semi_labeled
    if percent == "full":
        names = ["annotations/instances_train2017.json", "annotations/image_info_unlabeled2017.json"]
        folders = ["train2017/", "unlabeled2017/"]
    else:
        split = f"semi_anns/instances_train2017.1@{percent}"
        names, folders = [f"{split}.json", f"{split}-unlabeled.json"], ["train2017/"] * 2
    assert [labeled.ann_file, unlabeled.ann_file] == names
    assert [labeled.data_prefix.img, unlabeled.data_prefix.img] == folders
    assert labeled.filter_cfg == dict(filter_empty_gt=True, min_size=32)
    assert "filter_cfg" not in unlabeled  # every unlabeled image counts
    assert twin.model.teacher is None and twin.train_cfg == semi.train_cfg
    assert twin.model.detector == semi.model.detector and twin.param_scheduler == semi.param_scheduler
    # The released baselines: 8 x 1 images at 0.01, full COCO 8 x 2 at 0.02.
    images, rate = (2, 0.02) if percent == "full" else (1, 0.01)
    assert (twin.train_dataloader.batch_size, twin.optim_wrapper.optimizer.lr) == (images, rate)


# method -> λ_u at step 0 and at the end, images labeled and unlabeled per GPU, decay, milestones
OTHERS = {
    "mean_teacher": (100 * np.exp(-5), 100.0, (1, 4), 0.999, [120_000, 160_000]),
    "fixmatch": (1.0, 1.0, (1, 4), 0.999, [120_000, 160_000]),
    "unbiased_teacher": (0.0, 4.0, (4, 4), 0.9996, [179_990, 179_995]),
}


@pytest.mark.parametrize("percent", ["1", "2", "5", "10"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_other_methods_on_coco(name: str, percent: str) -> None:
    config, soft = load(f"{name}/coco_{percent}"), load(f"soft_teacher/coco_{percent}")
    begin, end, counts, decay, milestones = OTHERS[name]
    method = build_method(config)
    assert method.unsup_weight(0) == pytest.approx(begin)
    assert method.unsup_weight(36_000) == end
    assert tuple(config.train_dataloader.sampler.counts) == counts
    assert (config.model.teacher.decay, config.param_scheduler[1].milestones) == (decay, milestones)
    assert config.train_cfg == soft.train_cfg and config.optim_wrapper == soft.optim_wrapper
    for ours, theirs in zip(sources(config), sources(soft), strict=True):
        if name == "unbiased_teacher":  # its strong views are not moved
            ours.pop("pipeline"), theirs.pop("pipeline")
        assert ours == theirs


def test_unbiased_teacher_is_the_published_recipe() -> None:
    config = load("unbiased_teacher/coco_10")
    model = build_model(config)
    start = model.method.unsup_weight.start
    assert (start, model.method.selection.floor, model.student.roi_head.bbox_head.loss_cls.gamma) == (
        2_000,
        0.7,
        1.5,
    )
    assert config.model.detector.train_cfg.rpn.sampler.pos_fraction == 0.25
    [views] = [step for step in sources(config)[1].pipeline if step["type"] == "TwoViews"]
    scales = [(1333, side) for side in range(640, 801, 32)]
    for name in ("10", "5"):  # the released Base-RCNN-FPN.yaml: one of six, for all views
        parts = sources(load(f"unbiased_teacher/coco_{name}"))
        resizes = [
            parts[0].pipeline[2],
            *(part[0] for part in (parts[1].pipeline[1].weak, parts[1].pipeline[1].strong)),
        ]
        assert [each.type for each in resizes] == ["RandomChoiceResize"] * 3
        assert all([tuple(size) for size in each.scales] == scales for each in resizes)
    assert "Rotate" in str(load("fixmatch/coco_10").train_dataloader) and "Rotate" not in str(views)


@pytest.mark.parametrize("data", ["shapes", "bccd_10"])
def test_small_configs_follow_soft_teachers(data: str) -> None:
    soft = load(f"soft_teacher/{data}")
    for name in OTHERS:
        config = load(f"{name}/{data}")
        assert config.train_cfg == soft.train_cfg and config.param_scheduler == soft.param_scheduler
        assert config.train_dataloader == soft.train_dataloader
    ramp = load(f"mean_teacher/{data}").model.method.unsup_weight
    assert ramp.length == soft.train_cfg.max_iters // 5 and ramp.shape == "sigmoid"


def test_the_rung_with_an_average_is_one_option_away() -> None:
    plain, averaged = load("fixmatch/shapes"), load("fixmatch/shapes_ema")
    assert averaged.model.method == {**plain.model.method, "labeler": "teacher"}
    averaged.model.method = plain.model.method
    assert averaged._cfg_dict == plain._cfg_dict


def test_views_of_coco_have_the_published_sizes() -> None:
    labeled, unlabeled = sources(load("soft_teacher/coco_10"))
    views = next(step for step in unlabeled.pipeline if step["type"] == "TwoViews")
    for pipeline in (labeled.pipeline, views["weak"], views["strong"]):
        [resize] = [step for step in pipeline if "Resize" in step["type"]]
        assert resize == dict(type="RandomResize", scale=[(1333, 400), (1333, 1200)], keep_ratio=True)
    [resize] = [
        step
        for step in load("soft_teacher/coco_10").val_dataloader.dataset.pipeline
        if "Resize" in step["type"]
    ]
    assert resize == dict(type="Resize", scale=(1333, 800), keep_ratio=True)


def test_classes_of_coco_are_mmdets() -> None:
    from mmdet.datasets import CocoDataset

    assert load("soft_teacher/coco_10").classes == CocoDataset.METAINFO["classes"]


@pytest.mark.parametrize("name", ["soft_teacher/coco_10", "supervised/coco_full"])
def test_two_steps_on_real_coco_records(name: str, data_root: Path) -> None:
    """The whole path of a COCO run (files, sampler, views, R50-FPN, optimizer) at a small image size.

    The labeled images are one with a crowd record and one without any box. The weights are random, so
    Soft Teacher's bounds are lowered to let labels through.
    """
    from mmengine.optim import build_optim_wrapper
    from mmengine.runner import Runner

    from ssod.data.pipelines import labeled, strong, two_views, weak

    config = load(name)
    scale = (160, 128)
    for part, pipeline in zip(
        sources(config),
        (labeled(scale=scale), two_views(weak(scale=scale), strong(scale=scale))),
        strict=False,
    ):
        part.update(
            data_root=str(data_root / "coco_open_mini"),
            ann_file="train.json",
            data_prefix=dict(img="images/"),
            pipeline=pipeline,
        )
    content = json.loads((data_root / "coco_open_mini" / "train.json").read_text())
    crowd = next(one["image_id"] for one in content["annotations"] if one["iscrowd"])
    with_boxes = {one["image_id"] for one in content["annotations"]}
    [empty] = [image["id"] for image in content["images"] if image["id"] not in with_boxes]
    sources(config)[0].update(only_ids=[crowd, empty], filter_cfg=None)
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    config.model.detector.backbone.init_cfg = None
    config.model.detector.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
    config.model.detector.train_cfg.rcnn.sampler.num = 64
    if config.model.get("method"):
        config.model.method.update(floor=0.0, rpn_min_score=0.0, cls_min_score=0.0, box_max_spread=1.0)
    torch.manual_seed(0)
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    model = build_model(config)
    model.init_weights()
    model.start()
    config.optim_wrapper.precision = "float32"  # float16 needs a GPU
    config.optim_wrapper.optimizer.lr *= config.param_scheduler[0].start_factor  # where the warm-up begins
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    # A random ResNet's blocks end in a BatchNorm of weight 0, frozen here: nothing in them moves.
    heads = {
        name: (each, each.detach().clone())
        for name, each in model.student.named_parameters()
        if not name.startswith("backbone")
    }
    batches = iter(loader)
    for step in range(2):
        model.train()
        model.set_step(step)
        data = model.data_preprocessor(next(batches), training=True)
        losses = model.loss(data["inputs"])
        assert all(torch.isfinite(value).all() for value in losses.values()), losses
        optimizer.update_params(torch.stack([losses[key] for key in losses if "loss" in key]).sum())
        model.after_step(step)
    assert not [name for name, (new, old) in heads.items() if torch.equal(new, old)]
    assert all(torch.isfinite(each).all() for each in model.student.parameters())
    if config.model.get("method"):
        assert losses["num_boxes_cls"] > 0 and losses["unsup_loss_cls"] > 0


# our base -> mmdet's config of the same detector, and what ours leaves out of it
MMDETS = {
    "faster_rcnn_r50_fpn": ("faster_rcnn/faster-rcnn_r50-caffe_fpn_1x_coco.py", ()),
    "retinanet_r50_fpn": ("retinanet/retinanet_r50-caffe_fpn_1x_coco.py", ()),
    "fcos_r50_fpn": ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", ()),
    "mask_rcnn_r50_fpn": (
        "mask_rcnn/mask-rcnn_r50-caffe_fpn_1x_coco.py",
        (
            "roi_head.mask_head",
            "roi_head.mask_roi_extractor",
            "train_cfg.rcnn.mask_size",
            "test_cfg.rcnn.mask_thr_binary",
        ),
    ),
}


@pytest.mark.parametrize("name", MMDETS)
def test_a_detector_at_cocos_size_is_mmdets(name: str) -> None:
    import mmdet

    file, left_out = MMDETS[name]
    ours = Config.fromfile(CONFIGS / "_base_" / "models" / f"{name}.py").model
    theirs = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / file).model
    pixels = theirs.pop("data_preprocessor")
    for path in left_out:
        *parents, last = path.split(".")
        part = theirs
        for parent in parents:
            part = part[parent]
        del part[last]
    assert ours.detector == theirs
    assert all(ours.data_preprocessor[key] == pixels[key] for key in ("mean", "std", "bgr_to_rgb"))
    student = build_model(Config(dict(model=ours))).student
    assert (two_stage_fault(student) is None) == ("rcnn" in name)


def test_environment_names_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SSOD_DATA_ROOT and SSOD_WEIGHTS_ROOT: `data/` and `weights/` of the working folder."""
    assert load("soft_teacher/coco_1").data_root == os.path.join(os.environ["SSOD_DATA_ROOT"], "coco")
    monkeypatch.delenv("SSOD_DATA_ROOT")
    monkeypatch.delenv("SSOD_WEIGHTS_ROOT")
    config = load("soft_teacher/bccd_10")
    assert [part.data_root for part in sources(config)] == ["data/bccd"] * 2
    assert config.model.detector.backbone.weights == "weights/mobilenet_v2_imagenet.pth"

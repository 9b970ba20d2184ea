"""--scale-to: the published recipes by hand, trainings in stages, what is said and refused, a whole run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from ssod.core.schedules import Ramp
from ssod.engine.config import load_config
from ssod.engine.offline.stage_plan import teacher_config
from ssod.engine.recipe.scaling import Scaled, at_size, scale
from ssod.engine.recipe.step_size import Size, written_for
from ssod.engine.train import train
from ssod.errors import UserError

from ...reference.recipes import small

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
COCO = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob("*/coco_*.py"))

pytestmark = pytest.mark.usefixtures("registered")


@cache
def load(name: str) -> Config:
    """A shipped config as tools/train.py has it; nobody may change it."""
    return load_config(CONFIGS / name)


def to(config: Config, text: str) -> Scaled:
    return scale(config, Size.parse(text))


def values(config: Config) -> dict[str, Any]:
    """What is scaled in a config with a warm-up and a MultiStepLR."""
    warm, steps = config.param_scheduler
    assert (warm.begin, steps.begin) == (0, 0) and steps.end == config.train_cfg.max_iters
    return {
        "counts": tuple(config.train_dataloader.sampler.counts),
        "batch": config.train_dataloader.batch_size,
        "lr": config.optim_wrapper.optimizer.lr,
        "iterations": config.train_cfg.max_iters,
        "warm": warm.end,
        "drops": list(steps.milestones),
        "validation": config.train_cfg.val_interval,
        "checkpoint": config.default_hooks.checkpoint.interval,
    }


NAMES = ("counts", "batch", "lr", "iterations", "warm", "drops", "validation", "checkpoint")
SOFT, FULL = "soft_teacher/coco_10.py", "soft_teacher/coco_full.py"
UNBIASED, STAC = "unbiased_teacher/coco_10.py", "stac/coco_10.py"
TWIN, FULL_TWIN = "supervised/coco_10.py", "supervised/coco_full.py"
FCOS = "supervised/coco_10_fcos.py"
# By hand, from 180,000 iterations (720,000: full), rate 0.01, warm-up 500, validation every 5,000, a
# checkpoint every 500. 1x1+4 has 5 of 40 images: rate / 8, lengths x 8; 2x1+4 10 of 40; 4x2+8 all 40.
BY_HAND: dict[tuple[str, str], tuple[Any, ...]] = {
    (SOFT, "1x1+4"): ((1, 4), 5, 0.00125, 1_440_000, 4_000, [960_000, 1_280_000], 40_000, 4_000),
    (SOFT, "2x1+4"): ((1, 4), 5, 0.0025, 720_000, 2_000, [480_000, 640_000], 20_000, 2_000),
    (SOFT, "4x2+8"): ((2, 8), 10, 0.01, 180_000, 500, [120_000, 160_000], 5_000, 500),
    (SOFT, "16x1+4"): ((1, 4), 5, 0.02, 90_000, 250, [60_000, 80_000], 2_500, 250),
    # 15 of 40: x 8/3: 500 -> 1333.3, 160,000 -> 426,666.7
    (SOFT, "3x1+4"): ((1, 4), 5, 0.00375, 480_000, 1_333, [320_000, 426_667], 13_333, 1_333),
    (FULL, "4x4+4"): ((4, 4), 8, 0.005, 1_440_000, 1_000, [960_000, 1_280_000], 10_000, 1_000),
    # 2 of 64 images
    (FULL, "1x1+1"): ((1, 1), 2, 0.0003125, 23_040_000, 16_000, [15_360_000, 20_480_000], 160_000, 16_000),
    # Warm-up 1,000, drops ten and five steps before the end; 4 of 64 images, and 512 of 64: 179,990 / 8 =
    # 22,498.75 and 179,995 / 8 = 22,499.4, both rounded to 22,499.
    (UNBIASED, "1x2+2"): ((2, 2), 4, 0.000625, 2_880_000, 16_000, [2_879_840, 2_879_920], 80_000, 8_000),
    (UNBIASED, "64x4+4"): ((4, 4), 8, 0.08, 22_500, 125, [22_498, 22_499], 625, 63),
    (STAC, "1x1+1"): ((1, 1), 2, 0.00125, 1_440_000, 4_000, [960_000, 1_280_000], 40_000, 4_000),
    (STAC, "2x4+4"): ((4, 4), 8, 0.01, 180_000, 500, [120_000, 160_000], 5_000, 500),
    # 8 images a step; full: rate 0.02 at 16
    (TWIN, "1x1"): ((1,), 1, 0.00125, 1_440_000, 4_000, [960_000, 1_280_000], 40_000, 4_000),
    (TWIN, "2x4"): ((4,), 4, 0.01, 180_000, 500, [120_000, 160_000], 5_000, 500),
    (FULL_TWIN, "4x2"): ((2,), 2, 0.01, 1_440_000, 1_000, [960_000, 1_280_000], 10_000, 1_000),
    # rate 0.005 at 8
    (FCOS, "1x2"): ((2,), 2, 0.00125, 720_000, 2_000, [480_000, 640_000], 20_000, 2_000),
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), BY_HAND, ids=[" ".join(each) for each in BY_HAND])
def test_published_recipes_by_hand(name: str, size: str) -> None:
    scaled = to(load(name), size).config
    found, expected = values(scaled), dict(zip(NAMES, BY_HAND[name, size], strict=True))
    assert found.pop("lr") == pytest.approx(expected.pop("lr"), rel=1e-12)
    assert found == expected
    stays = {**scaled.optim_wrapper, "optimizer": {**scaled.optim_wrapper.optimizer, "lr": None}}
    before = load(name).optim_wrapper
    assert stays == {**before, "optimizer": {**before.optimizer, "lr": None}}


@pytest.mark.parametrize("name", COCO)
def test_every_coco_config_was_written_for_eight_and_scales(name: str) -> None:
    """On one process with the same images each: an eighth of the rate, eight times as long."""
    config = load(name)
    counts = tuple(config.train_dataloader.sampler.counts)
    assert written_for(config) == Size(8, counts)
    scaled = scale(config, Size(1, counts))
    before, after = values(config), values(scaled.config)
    assert after["lr"] == pytest.approx(before["lr"] / 8, rel=1e-12)
    for key in ("iterations", "warm", "validation", "checkpoint"):
        assert after[key] == 8 * before[key]
    assert after["drops"] == [8 * step for step in before["drops"]]
    teacher, method = config.model.get("teacher"), config.model.get("method")
    if teacher:
        assert scaled.config.model.teacher.decay**8 == pytest.approx(teacher.decay, rel=1e-12)
    if method:
        ramps = [
            Ramp.of(_plain(each.model.method.get("unsup_weight", 2.0))) for each in (config, scaled.config)
        ]
        for step in (0, 1_999, 2_000, 10_000, 36_000, 100_000):
            assert ramps[1](8 * step) == pytest.approx(ramps[0](step), rel=1e-12)
    assert scaled.rows[1][1] == scaled.rows[1][2]  # images seen
    assert len(scaled.notes) == 1


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def test_burn_in_and_ramp_by_hand() -> None:
    unbiased = to(load("unbiased_teacher/coco_10.py"), "2x4+4").config.model
    assert unbiased.method.unsup_weight == dict(value=4.0, start=8_000)
    assert unbiased.teacher.decay == pytest.approx(0.99989998, abs=1e-8)  # 0.9996 ** (1 / 4)
    mean = to(load("mean_teacher/coco_10.py"), "1x1+4").config.model.method
    assert mean.unsup_weight == dict(value=100.0, length=288_000, shape="sigmoid")


def test_a_square_root_for_adam_and_a_cosine() -> None:
    """shapes: AdamW 1e-3 at 8 + 8, 1,800 iterations, a cosine over the last 600, burn-in 500."""
    config = to(load("soft_teacher/shapes.py"), "1x2+2").config
    assert config.optim_wrapper.optimizer == dict(type="AdamW", lr=0.0005, weight_decay=0.05)
    warm, cosine = config.param_scheduler
    assert (warm.end, cosine.begin, cosine.end, cosine.T_max) == (200, 4_800, 7_200, 2_400)
    assert config.train_cfg.max_iters == 7_200 and config.model.method.unsup_weight.start == 2_000
    assert config.model.teacher.decay == pytest.approx(0.99 ** (1 / 4))
    assert config.optim_wrapper.clip_grad == dict(max_norm=10.0)


# ---------------------------------------------------------------- stages


def staged(ratio: tuple[int, int] = (1, 1), **teacher: Any) -> Config:
    """A training in stages for 8 x ratio."""
    parts = [dict(type="LabeledCoco"), dict(type="PseudoLabeled", dataset=dict(type="UnlabeledCoco"))]
    loader = dict(
        batch_size=sum(ratio),
        sampler=dict(type="LabeledUnlabeledSampler", counts=ratio),
        dataset=dict(type="ConcatDataset", datasets=parts),
    )
    model = dict(type="SemiDetector", teacher=None, method=dict(type="STAC"))
    return small(model=model, train_dataloader=loader, stages=dict(teacher=teacher, rounds=1))


def trained_teacher(config: Config) -> tuple[Any, ...]:
    """What the teacher of a training in stages is trained with."""
    made = teacher_config(config, config.stages.get("teacher") or {})
    train_cfg, drops = made.train_cfg, made.param_scheduler[1]
    rate = pytest.approx(made.optim_wrapper.optimizer.lr)
    counts = tuple(made.train_dataloader.sampler.counts)
    return counts, train_cfg.max_iters, train_cfg.val_interval, rate, drops.milestones, made.written_for


def test_at_the_same_ratio_the_teacher_follows_the_student() -> None:
    scaled = to(staged(), "2x2+2")  # half of the images
    assert scaled.config.stages == dict(teacher={}, rounds=1)
    assert trained_teacher(scaled.config) == (
        (2,), 1_600, 200, 0.005, [800, 1_200], dict(world_size=2)
    )  # fmt: skip
    assert ("images seen by the teacher", "6,400", "6,400") in scaled.rows


def test_what_the_teacher_has_of_its_own_is_scaled() -> None:
    changes = dict(train_cfg=dict(max_iters=400), optim_wrapper=dict(optimizer=dict(lr=0.02)))
    scaled = to(staged(**changes), "1x1+1").config
    assert scaled.stages.teacher == dict(
        train_cfg=dict(max_iters=3_200),
        optim_wrapper=dict(optimizer=dict(lr=pytest.approx(0.0025))),
        # 400 and 600 lie behind the teacher's end, where they were before.
    )
    assert to(scaled, "8x1+1").config.stages.teacher == changes


def test_at_another_ratio_the_teacher_is_scaled_by_its_labeled_images() -> None:
    """8 x (1 + 1) to 2 x (1 + 4): the student has 10 of 16 images, the teacher 2 of 8."""
    scaled = to(staged(), "2x1+4")
    assert scaled.config.train_cfg.max_iters == 1_280
    assert trained_teacher(scaled.config) == (
        (1,), 3_200, 400, 0.0025, [1_600, 2_400], dict(world_size=2)
    )  # fmt: skip
    assert ("stages.teacher.train_cfg.max_iters", 800, 3_200) in scaled.rows
    assert scaled.notes[1].startswith("this changes the recipe") and "4, not 1" in scaled.notes[1]
    assert to(scaled.config, "2x1+4").config == scaled.config
    back = to(scaled.config, "8x1+1").config
    assert trained_teacher(back) == trained_teacher(staged()) and back.train_cfg.max_iters == 800


def test_a_teacher_with_a_batch_of_its_own_is_refused() -> None:
    own = dict(batch_size=4, sampler=dict(counts=(4,)))
    with pytest.raises(UserError, match="teacher has a batch of its own"):
        to(staged(train_dataloader=own), "1x1+1")


# ---------------------------------------------------------------- what is said


def test_the_table() -> None:
    first, *lines = str(to(small(), "2x1+4")).splitlines()
    assert first == (
        "--scale-to 2x1+4: 10 images an optimizer step, "
        "1/4 times the 40 that the config is written for (8x1+4)"
    )
    assert lines == [
        "                                     before          after",
        "  images an optimizer step           8 + 32          2 + 8",
        "  images seen                        6,400 + 25,600  6,400 + 25,600",
        "  model.teacher.decay                0.9             0.974003746",
        "  model.method.unsup_weight.start    10              40",
        "  model.method.unsup_weight.length   30              120",
        "  train_cfg.max_iters                800             3200",
        "  train_cfg.val_interval             100             400",
        "  optim_wrapper.optimizer.lr         0.01            0.0025",
        "  param_scheduler.0.end              80              320",
        "  param_scheduler.1.end              800             3200",
        "  param_scheduler.1.milestones       [400, 600]      [1600, 2400]",
        "  default_hooks.checkpoint.interval  50              200",
        "  written_for.world_size             8               2",
    ]


def test_another_ratio_is_named() -> None:
    said = str(to(small(), "8x2+2")).splitlines()[-1]
    assert said == (
        "this changes the recipe: unlabeled images for each labeled one: 1, not 4; "
        "unsup_weight stays, which was chosen for the latter"
    )
    assert "changes the recipe" not in str(to(small(), "4x2+8"))


@pytest.mark.parametrize(
    ("config", "world_size", "said"),
    [
        (small(), 8, ""),
        (small(written_for=None), 1, ""),
        (small(), 2, "rate and schedule are written for 8x1+4, here is 2x1+4: --scale-to 2x1+4 would scale"),
        (
            small(optim_wrapper=dict(accumulative_counts=8)),
            1,
            "written for 8x1+4, here is 1x1+4 with 8 iterations a step: --scale-to 1x1+4 would",
        ),
    ],
)
def test_a_run_of_another_size_is_told_so(config: Config, world_size: int, said: str) -> None:
    same, text = at_size(config, None, {}, world_size)
    assert same is config and said in text and bool(text) == bool(said)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "8x",
        "x1+4",
        "8x1+",
        "8x0+4",
        "0x1+4",
        "8x1+0",
        "8x1+4+4",
        "8*1+4",
        "-1x1+4",
        "8x1.5",
        "٣x1+4",
    ],
)
def test_text_that_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="give WORLDxLABELED") as caught:
        at_size(small(), text, {}, 8)
    assert "\n" not in str(caught.value)


def change(config: Config, place: str, value: Any) -> Config:
    config.merge_from_dict({place: value})
    return config


REFUSED: list[tuple[Callable[[], Config], str, str]] = [
    (small, "8x5", "trains on 2 datasets: give something like 8x1[+]4"),
    (
        lambda: small(train_dataloader=dict(batch_size=2)),
        "8x1+1",
        "labeled images alone: give something like 8x2",
    ),
    (lambda: small(written_for=None), "8x1+4", "add written_for=dict"),
    (lambda: small(written_for=8), "8x1+4", "written_for is 8: give dict"),
    (lambda: small(written_for=dict(world_size=0)), "8x1+4", "give dict"),
    (lambda: small(written_for=dict(world_size=True)), "8x1+4", "give dict"),
    (lambda: small(written_for=dict(world_size=8, gpus=8)), "8x1+4", "give dict"),
    (lambda: small(written_for=dict(accumulative_counts=8)), "8x1+4", "give dict"),
    (lambda: change(small(), "optim_wrapper.optimizer.type", "LBFGS"), "8x2+8", "learning rate of LBFGS"),
    (lambda: change(small(), "optim_wrapper.optimizer.lr", None), "8x2+8", "lr is None: give a number"),
    (
        lambda: small(param_scheduler=[dict(type="ReduceOnPlateauLR", by_epoch=False)]),
        "8x2+8",
        "param_scheduler.0 is a ReduceOnPlateauLR",
    ),
    (
        lambda: small(
            param_scheduler=[dict(type="MultiStepLR", by_epoch=False, milestones=[796, 797, 798, 799])]
        ),
        "8x200+800",
        r"milestones=\[796, 797, 798, 799\] do not fit into the 4 iterations that are left",
    ),
]


@pytest.mark.parametrize(("config", "size", "said"), REFUSED, ids=[row[2] for row in REFUSED])
def test_a_config_that_has_no_such_size(config: Callable[[], Config], size: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        at_size(config(), size, {}, 8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("started", "said"),
    [(1, "8 processes and 1 process was started: start 8"), (2, "2 processes were started.*or give 2x")],
)
def test_another_number_of_processes(started: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        at_size(small(), "8x1+4", {}, started)


@pytest.mark.parametrize(
    "option",
    ["train_dataloader.batch_size", "train_dataloader.sampler.counts", "train_dataloader.sampler.counts.0"],
)
def test_an_option_that_says_the_same_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"{option} and --scale-to 8x2[+]8 both say it"):
        at_size(small(), "8x2+8", {option: 1}, 8)


# ---------------------------------------------------------------- a whole run


def test_a_run_is_scaled_and_its_config_says_so(
    toy_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options change the recipe, then it is scaled: 2 images a step, 12 iterations, rate 0.2, to 4 images."""
    path = toy_config("written_for = dict(world_size=1)\n")
    options = {"train_cfg.max_iters": 12, "optim_wrapper.optimizer.lr": 0.2}
    result = train(path, work_dir=tmp_path / "run", options=options, scale_to="1x4")
    assert (result["iterations"], result["images_seen"]["labeled"]) == (6, 24)
    said = capsys.readouterr().out
    assert said.startswith("--scale-to 1x4: 4 images an optimizer step, 2 times the 2 ")
    assert [line.split()[1:] for line in said.splitlines() if "max_iters" in line] == [["12", "6"]]
    dumped = Config.fromfile(tmp_path / "run" / "config.py")
    assert dumped.written_for == dict(world_size=1) and dumped.train_dataloader.batch_size == 4
    assert dumped.optim_wrapper.optimizer.lr == 0.4 and dumped.train_cfg.max_iters == 6
    again = train(tmp_path / "run" / "config.py", work_dir=tmp_path / "again", scale_to="1x4")
    assert again["iterations"] == 6 and "nothing changes" in capsys.readouterr().out
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "last.pth", weights_only=False)
        for name in ("run", "again")
    ]
    assert all(
        torch.equal(weights[0]["state_dict"][key], value) for key, value in weights[1]["state_dict"].items()
    )


def test_nothing_is_left_of_a_run_that_was_refused(toy_config: Callable[..., Path], tmp_path: Path) -> None:
    path = toy_config("written_for = dict(world_size=1)\n")
    for wanted in ("2x4", "1x2+2", "4"):
        with pytest.raises(UserError):
            train(path, work_dir=tmp_path / "run", scale_to=wanted)
    assert not (tmp_path / "run").exists()

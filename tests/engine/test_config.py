"""Config mistakes found before anything is built, and what a config may leave out."""

from pathlib import Path

import pytest
from mmengine.config import Config

from ssod.engine.config import check_names, default_work_dir, load_config, use_fused_optimizer
from ssod.engine.mistakes import suggest
from ssod.errors import UserError

MINIMAL = """
model = dict(type="M", detector=dict(layers=[dict(size=1), dict(size=2)]))
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_iters=3)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1))
"""


def written(folder: Path, more: str = "") -> Path:
    path = folder / "some.py"
    path.write_text(MINIMAL + more)
    return path


def test_what_is_left_out_is_filled_in(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "val_dataloader = dict(x=1)\nval_evaluator = dict(x=1)\n"))
    assert config.train_cfg.type == "SemiTrainLoop" and config.val_cfg.type == "SemiValLoop"
    assert config.optim_wrapper.type == "GuardedOptimWrapper"
    assert config.default_scope == "ssod" and config.randomness.seed == 0
    assert config.default_hooks.checkpoint.type == "Checkpoints"


def test_options_switch_validation_off(tmp_path: Path) -> None:
    """The bases set val_cfg, too, which mmengine refuses without the other two."""
    more = "val_dataloader = dict(x=1)\nval_evaluator = dict(x=1)\nval_cfg = dict(type='SemiValLoop')\n"
    config = load_config(written(tmp_path, more), {"val_dataloader": None, "val_evaluator": None})
    assert "val_cfg" not in config


def test_what_is_given_stays(tmp_path: Path) -> None:
    more = "randomness = dict(seed=4)\ndefault_hooks = dict(pictures=None, mine=dict(type='Mine'))\n"
    config = load_config(written(tmp_path, more))
    assert config.randomness.seed == 4 and config.default_hooks.pictures is None
    assert config.default_hooks.mine.type == "Mine" and config.default_hooks.semi.type == "SemiHook"


def test_options_reach_lists_and_defaults(tmp_path: Path) -> None:
    options = {
        "model.detector.layers.1.size": 7,
        "default_hooks.scalars.interval": 3,
        "train_cfg.val_interval": 5,  # not named yet, but an argument of a typed dict
    }
    config = load_config(written(tmp_path), options)
    assert config.model.detector.layers[1].size == 7 and config.model.detector.layers[0].size == 1
    assert config.default_hooks.scalars == dict(type="ScalarLog", interval=3)
    assert config.train_cfg.val_interval == 5


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("modl.type", "the config has no 'modl'; did you mean model"),
        ("model.detectr.layers", "model has no 'detectr'; did you mean detector"),
        ("model.detector.depth", "model.detector has no 'depth'"),
        ("model.detector.layers.2.size", "is a list of 2"),
        ("model.type.name", "is 'M' and has nothing below it"),
        ("_width", "is a helper variable"),
    ],
)
def test_unknown_option_paths(tmp_path: Path, key: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(written(tmp_path, "_width = 3\n"), {key: 1})
    assert said in str(caught.value) and key in str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("train_cfg = dict(by_epoch=True, max_epochs=12)\n", "counts in epochs"),
        ("train_cfg = dict(type='EpochBasedTrainLoop', max_iters=1)\n", "counts in epochs"),
        ("train_cfg = dict(val_interval=3)\n", "no max_iters"),
        ("train_cfg.update(max_iters='abc')\n", "train_cfg.max_iters is 'abc': give a whole number"),
        ("train_cfg.update(max_iters=-5)\n", "train_cfg.max_iters is -5"),
        ("train_cfg.update(max_iters=2.5)\n", "train_cfg.max_iters is 2.5"),
        ("train_cfg.update(val_interval=0)\n", "train_cfg.val_interval is 0"),
        ("train_dataloader.update(sampler=dict(counts=8))\n", "train_dataloader.sampler.counts is 8: give a"),
        ("optim_wrapper.update(accumulative_counts=0)\n", "optim_wrapper.accumulative_counts is 0"),
        ("optim_wrapper.update(clip_grad=10)\n", "optim_wrapper.clip_grad is 10: give dict(max_norm"),
        ("default_hooks = dict(scalars=dict(interval=0))\n", "default_hooks.scalars.interval is 0"),
        ("train_dataloader.update(num_workers='a')\n", "train_dataloader.num_workers is 'a'"),
        ("param_scheduler = dict(by_epoch=False, begin=None)\n", "param_scheduler.0.begin is None"),
        ("auto_scale_lr = dict(enable=True, base_batch_size=8)\n", "leave it out; tools/train.py --scale-to"),
        ("randomness = dict(seed=-1)\n", "randomness.seed) is -1"),
        ("randomness = dict(seed='one')\n", "randomness.seed) is 'one'"),
        (
            "optim_wrapper['optimizer']['lr'] = 'fast'\n",
            "optim_wrapper.optimizer.lr is 'fast': give a number",
        ),
        ("optim_wrapper['optimizer']['weight_decay'] = -1\n", "optim_wrapper.optimizer.weight_decay is -1"),
        ("param_scheduler = [dict(type='StepLR', step_size=1)]\n", "by_epoch=False"),
        ("val_dataloader = dict(x=1)\n", "has no val_evaluator"),
        ("train_dataloader.update(sampler=dict(counts=(1, 4)))\n", "sum to 5"),
        ("model = None\n", "has no model"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("resume = True\n", "--resume"),
        ("test_cfg = dict()\n", "nothing reads 'test_cfg'"),
        ("_base_ = ['gone.py']\n", "gone.py"),
    ],
)
def test_configs_that_cannot_train(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(written(tmp_path, more))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_that_can_be_meant(tmp_path: Path) -> None:
    more = "train_cfg.update(max_iters=1e3, val_interval=1)\nrandomness = dict(seed=None)\n"
    more += "auto_scale_lr = dict(enable=False, base_batch_size=16)\n"  # mmdet's configs have it so
    assert load_config(written(tmp_path, more)).train_cfg.max_iters == 1000


def test_a_checkpoint_in_the_place_of_the_config() -> None:
    with pytest.raises(UserError, match=r"run/last\.pth is a checkpoint: the config comes first"):
        load_config("run/last.pth")


def test_helper_variables_are_told_from_mistakes() -> None:
    check_names(Config(dict(_scale=3, CLASSES=("a",), data_root="x", model={})), "c.py")
    with pytest.raises(UserError, match="'optim_wraper'; did you mean optim_wrapper"):
        check_names(Config(dict(optim_wraper={})), "c.py")
    with pytest.raises(UserError, match=r"'zebra'.*starts with an underscore"):
        check_names(Config(dict(zebra={})), "c.py")


@pytest.mark.parametrize(
    ("given", "has_gpu", "set_"),
    [
        (dict(type="SGD"), True, dict(fused=True)),
        (dict(type="AdamW"), False, dict(foreach=True)),
        (dict(type="SGD", fused=False), True, {}),
        (dict(type="SGD", dampening=0.1), True, dict(foreach=True)),
        (dict(type="Lion"), True, {}),
    ],
)
def test_optimizers_step_all_parameters_at_once(
    given: dict[str, object], has_gpu: bool, set_: dict[str, object]
) -> None:
    config = Config(dict(optim_wrapper=dict(optimizer=given)))
    use_fused_optimizer(config, has_gpu)
    assert config.optim_wrapper.optimizer == given | set_


def test_default_work_dir() -> None:
    assert default_work_dir("configs/soft_teacher/bccd_10.py") == Path("work_dirs/soft_teacher/bccd_10")
    assert default_work_dir("/x/configs/a.py") == Path("work_dirs/a")
    assert default_work_dir("/x/mine.py") == Path("work_dirs/mine")
    assert default_work_dir("work_dirs/run_3/config.py") == Path("work_dirs/run_3_again")


def test_suggest() -> None:
    assert suggest("scor", ["score", "class"]) == "; did you mean score?"
    assert suggest("zebra", ["score"]) == ""
    assert suggest("SDG", ["Adam", "SGD"]) == "; did you mean SGD?"  # two letters swapped

"""Reading, checking and completing a config: a mistake is one line before anything is built."""

import copy
import traceback
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ssod.engine.faults.data_policy import DataPolicy, share_classes
from ssod.engine.loading import choose_workers
from ssod.engine.mistakes import suggest
from ssod.engine.number_faults import length_faults, number_faults
from ssod.errors import UserError

# What mmengine's Runner or a part of ours reads. Any other name must be a helper variable.
KNOWN_NAMES = frozenset(
    (
        *("model", "load_from", "stages", "data_policy", "written_for", "hidden_truth"),
        *("train_dataloader", "val_dataloader", "test_dataloader"),
        *("train_cfg", "val_cfg", "val_evaluator", "test_evaluator"),
        *("optim_wrapper", "param_scheduler", "auto_scale_lr"),
        *("default_hooks", "custom_hooks", "custom_imports"),
        *("work_dir", "launcher", "env_cfg", "randomness", "experiment_name"),
        *("log_processor", "log_level", "visualizer", "default_scope"),
        *("model_wrapper_cfg", "sync_bn", "find_unused_parameters"),
        *("activation_checkpointing", "efficient_conv_bn_eval", "compile"),
    )
)
# Helper variables start with an underscore or are constants in capitals (imported, mostly); these
# few of mmdet's and ours may do without.
HELPER_NAMES = frozenset({"classes", "data_root", "dataset_type", "backend_args", "metainfo"})

DEFAULT_SEED = 0
DEFAULT_HOOKS: dict[str, dict[str, Any] | None] = {
    "runtime_info": {"type": "RuntimeInfo"},
    "timer": None,
    "sampler_seed": None,
    "logger": None,
    "param_scheduler": {"type": "ParamSchedulerHook"},
    "semi": {"type": "SemiHook"},
    "finite_guard": {"type": "FiniteGuard"},
    "scalars": {"type": "ScalarLog"},
    "checkpoint": {"type": "Checkpoints"},
    "pictures": {"type": "PseudoLabelPictures"},
    "telemetry": {"type": "PseudoLabelTelemetry"},
}
DEFAULT_VISUALIZER: dict[str, Any] = {"type": "Visualizer", "vis_backends": [{"type": "TensorBoard"}]}
TRAINING_NEEDS = ("model", "train_dataloader", "train_cfg", "optim_wrapper")
VALIDATION_NEEDS = ("val_dataloader", "val_evaluator")


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """The config with `--cfg-options`, checked and completed; UserError for any mistake."""
    config = read_config(path)
    check_names(config, path)
    complete(config, path)  # first, so that options may reach into what the config leaves out
    merge_options(config, options or {})
    return complete(config, path)


def read_config(path: str | Path) -> Config:
    """The config file with its bases; UserError for a missing file, bad syntax, a failing line."""
    path = Path(path)
    if path.suffix in (".pth", ".pt"):
        raise UserError(f"{path} is a checkpoint: the config comes first")
    if not path.is_file():
        near = sorted(str(each) for each in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise UserError(f"config file {path} does not exist{suggest(str(path), near)}")
    try:
        config = Config.fromfile(path)
        share_classes(config)
        return config
    except UserError:
        raise
    except SyntaxError as error:
        # mmengine parses a copy: its file name means nothing, and bases are read on the way.
        raise UserError(f"config {path} or a base of it has a syntax error: {error.msg} (line "
                        f"{error.lineno}: {(error.text or '').strip()})") from error  # fmt: skip
    except FileNotFoundError as error:
        raise UserError(f"config {path}: a base file is missing: {error}") from error
    except Exception as error:
        raise UserError(f"config {path}{_line_of(error)}: {_one_line(error)}") from error


def _line_of(error: BaseException) -> str:
    """Where in a config file an error arose: `, line 12`, with the file's name if it is a base."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.name == "<module>"]
    places = [each for each in frames if each.filename.endswith(".py") and "configs" in each.filename]
    return f", {Path(places[-1].filename).name} line {places[-1].lineno}" if places else ""


def _one_line(error: BaseException) -> str:
    """An error as one line: its class and its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def check_names(config: Config, path: str | Path) -> None:
    """Raises UserError for a name that nothing reads: a misspelt option would do nothing."""
    for fault in name_faults(config):
        raise UserError(f"config {path}: {fault}")


def name_faults(config: Config) -> Iterator[str]:
    """A line for each name at the top of a config that does not belong there."""
    for name in config.keys():  # noqa: SIM118  iterating a Config itself is not iterating its names
        if name == "resume":
            yield "'resume' does not belong in a config; use --resume"
        elif name == "test_cfg":
            yield (
                "nothing reads 'test_cfg'; tools/test.py --split test uses test_dataloader and test_evaluator"
            )
        elif name not in KNOWN_NAMES and not _is_helper(name):
            yield (
                f"nothing reads the name {name!r}{suggest(name, KNOWN_NAMES)} "
                "(a helper variable starts with an underscore)"
            )


def _is_helper(name: str) -> bool:
    return name.startswith("_") or name.isupper() or name in HELPER_NAMES


def merge_options(config: Config, options: Mapping[str, Any]) -> None:
    """Merges `--cfg-options`; UserError for a path that is not in the config."""
    for key in options:
        # The teacher of a training in stages may differ from the config in anything the config has.
        _check_path(config, key.removeprefix("stages.teacher."))
    try:
        config.merge_from_dict(dict(options))
    except (TypeError, KeyError, IndexError) as error:
        raise UserError(f"--cfg-options: {_one_line(error)}") from error


def _check_path(config: Config, key: str) -> None:
    """Raises UserError unless all parents of `key` exist, and it does, or its parent is typed.

    A typed parent may get an option it does not name yet; building it finds a wrong one.
    """
    parts = key.split(".")
    if _is_helper(parts[0]) and parts[0] in config:
        raise UserError(
            f"--cfg-options {key}: {parts[0]} is a helper variable, used up when the config was "
            "read; set the options it went into"
        )
    node: Any = config._cfg_dict
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, Mapping):
            if part not in node and not (last and _takes_new_options(node, depth, part)):
                where = ".".join(parts[:depth]) or "the config"
                known = KNOWN_NAMES | set(node) if depth == 0 else set(node)
                raise UserError(f"--cfg-options {key}: {where} has no {part!r}{suggest(part, known)}")
            node = node.get(part)
        elif isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(
                    f"--cfg-options {key}: {'.'.join(parts[:depth])} is a list of {len(node)}, "
                    f"{part!r} is not a place in it"
                )
            node = node[int(part)]
        else:
            raise UserError(
                f"--cfg-options {key}: {'.'.join(parts[:depth])} is {node!r} and has nothing below it"
            )


def _takes_new_options(node: Mapping[str, Any], depth: int, part: str) -> bool:
    return part in KNOWN_NAMES if depth == 0 else "type" in node


def complete(config: Config, path: str | Path) -> Config:
    """The config with what it leaves out filled in; UserError for what can't train."""
    missing = [name for name in TRAINING_NEEDS if not config.get(name)]
    if missing:
        raise UserError(f"config {path} has no {', '.join(missing)}: inherit them with _base_")
    _check_loop(config)
    config.setdefault("default_scope", "ssod")
    config.train_cfg.setdefault("type", "SemiTrainLoop")
    config.train_cfg.pop("by_epoch", None)
    if any(config.get(name) for name in VALIDATION_NEEDS):
        absent = [name for name in VALIDATION_NEEDS if not config.get(name)]
        if absent:
            raise UserError(f"config {path} has no {absent[0]}: a validation needs it")
        if not config.get("val_cfg"):
            config.val_cfg = {}
        config.val_cfg.setdefault("type", "SemiValLoop")
    else:
        config.pop("val_cfg", None)  # of a base: mmengine takes it only with the other two
    config.default_hooks = {**DEFAULT_HOOKS, **(config.get("default_hooks") or {})}
    if "visualizer" not in config:  # None is a choice: no event files
        config.visualizer = copy.deepcopy(DEFAULT_VISUALIZER)
    config.randomness = {"seed": DEFAULT_SEED, **(config.get("randomness") or {})}
    config.data_policy = DataPolicy.of(config).as_config()
    choose_workers(config)
    wrapper = config.optim_wrapper
    if wrapper.get("type", "OptimWrapper") == "OptimWrapper":
        wrapper.type = "GuardedOptimWrapper"  # takes the same options and skips bad steps
    return config


def _check_loop(config: Config) -> None:
    """Raises UserError for a training counted in epochs, or one that our hooks can't follow."""
    for fault in chain(loop_faults(config), batch_faults(config)):
        raise UserError(fault)
    check_numbers(config)


def check_numbers(config: Config) -> None:
    """Raises UserError for a seed or a rate that can't be one."""
    for fault in number_faults(config):
        raise UserError(fault)


def loop_faults(config: Config) -> Iterator[str]:
    """A line for each part of the schedule that does not count in iterations."""
    train = config.get("train_cfg") or {}
    if "max_epochs" in train or train.get("by_epoch") or "Epoch" in str(train.get("type", "")):
        yield (
            "train_cfg counts in epochs, which the stream of labeled and unlabeled images does not "
            "have: use train_cfg=dict(type='SemiTrainLoop', max_iters=..., val_interval=...)"
        )
    elif "max_iters" not in train:
        yield "train_cfg has no max_iters: say how many iterations to train"
    yield from length_faults(config)
    schedulers = config.get("param_scheduler") or []
    for scheduler in [schedulers] if isinstance(schedulers, Mapping) else schedulers:
        if scheduler.get("by_epoch", True):
            yield (
                f"param_scheduler {scheduler.get('type')} counts in epochs: set by_epoch=False and "
                "give begin, end and milestones in iterations"
            )


def batch_faults(config: Config) -> Iterator[str]:
    """A line where the batch size is not what the sampler draws, or nothing can be drawn so."""
    loader = config.get("train_dataloader") or {}
    counts, size = (loader.get("sampler") or {}).get("counts"), loader.get("batch_size")
    numbers = counts if isinstance(counts, (list, tuple)) else [None]
    if counts and not all(isinstance(each, int) for each in numbers):
        yield (
            f"train_dataloader.sampler.counts is {counts!r}: give a whole number for each dataset, such as "
            "(1, 4)"
        )
    elif counts and size and sum(counts) != size:
        yield (
            f"train_dataloader.batch_size={size} but sampler.counts={tuple(counts)} sum to "
            f"{sum(counts)}: make them equal"
        )


def use_mixed_precision(config: Config, has_gpu: bool, has_bfloat16: bool) -> None:
    """Sets the optimizer wrapper's precision for `--amp`."""
    config.optim_wrapper.precision = mixed_precision(has_gpu, has_bfloat16)


def mixed_precision(has_gpu: bool, has_bfloat16: bool) -> str:
    """The type that mixed precision computes in: bfloat16 where the device has it."""
    return "bfloat16" if has_bfloat16 or not has_gpu else "float16"


def use_fused_optimizer(config: Config, has_gpu: bool) -> None:
    """Lets the optimizer step all parameters at once, unless the config says how it is to step.

    On a GPU in one kernel, which can skip a bad step without anyone waiting (a first one not with dampening);
    on a CPU by torch's `foreach`, to the bit what one parameter after the other gives.
    """
    optimizer = config.optim_wrapper.get("optimizer") or {}
    known = optimizer.get("type") in ("SGD", "Adam", "AdamW")
    if known and not {"foreach", "fused"} & set(optimizer):
        optimizer["fused" if has_gpu and not optimizer.get("dampening") else "foreach"] = True


def default_work_dir(path: str | Path) -> Path:
    """`work_dirs/<place of the config below configs/, without .py>`, or its file name elsewhere."""
    parts = Path(path).absolute().with_suffix("").parts
    if "configs" in parts:
        below = parts[len(parts) - parts[::-1].index("configs") :]
        return Path("work_dirs", *below)
    # A run's own config.py is named after its run.
    return Path("work_dirs", f"{parts[-2]}_again" if parts[-1] == "config" else parts[-1])

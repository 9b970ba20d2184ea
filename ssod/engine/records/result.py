"""What a run leaves besides its weights: result.json, metrics.jsonl, and who may write where."""

import fcntl
import importlib
import json
import math
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size

import ssod
from ssod.engine.records.writing import close_in_children, naming, write_text
from ssod.engine.saving.checkpoints import FOLDER, KEPT, LAST
from ssod.errors import UserError

RESULT = "result.json"
METRICS = "metrics.jsonl"
STAGE_METRICS = f"stage_*_*/{METRICS}"  # below the work dir of a training in stages
LOCK = ".lock"
DIVERGED = "diverged.json"  # what the finite guard knew when it ended the run
PSEUDO_LABELS = ("precision_50", "recall_50", "mean_iou", "boxes_per_image")  # of what teaches classes
OUTPUTS = (
    *(RESULT, METRICS, DIVERGED, "config.py", "curves.png", "train.log"),
    *(FOLDER, "pseudo_labels", "tensorboard"),
)


def write_json(path: Path, content: Any) -> None:
    """Writes the file whole or not at all; a number that is not finite becomes null."""
    write_text(path, json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """The value with nan and inf as None, and containers as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_result(work_dir: Path) -> dict[str, Any] | None:
    """The work dir's result.json; None if there is none that can be read."""
    try:
        content = json.loads((work_dir / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_free(work_dir: Path, resume: bool) -> None:
    """Raises UserError where a new run would write over another one's files."""
    if work_dir.exists() and not work_dir.is_dir():
        raise UserError(f"work dir {work_dir} is a file: choose another --work-dir")
    status = (read_result(work_dir) or {}).get("status")
    if resume:
        return
    if status == "done":
        raise UserError(f"work dir {work_dir} holds a finished run: choose another --work-dir, or remove it")
    kept, last = sorted((work_dir / FOLDER).glob(KEPT)), (work_dir / FOLDER / LAST).exists()
    if kept or last:  # a best_*.pth goes on with nothing: it has no optimizer
        here = "" if last else f" {kept[-1]}"
        raise UserError(
            f"work dir {work_dir} holds an unfinished run: add --resume{here} to continue it, or choose "
            "another --work-dir"
        )
    strange = [name for name in OUTPUTS if status is None and (work_dir / name).exists()]
    if strange:
        raise UserError(
            f"work dir {work_dir} has a {strange[0]} that no run of ours wrote: choose another --work-dir"
        )


def lock(work_dir: Path) -> Any:
    """An open file that keeps other runs out of the work dir until it is closed; UserError if in use.

    Some cluster file systems can't lock: there the run goes on, and nothing keeps others out.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        file = open(work_dir / LOCK, "w")  # noqa: SIM115  open as long as the run
    except OSError as error:
        raise UserError(
            f"work dir {work_dir} can't be written ({error.strerror}): choose another --work-dir"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(
            f"another run is writing to work dir {work_dir} now: choose another --work-dir"
        ) from None
    except OSError:  # no lock to be had, as in the caches
        pass
    close_in_children(file)
    return file


def clear(work_dir: Path) -> None:
    """Removes what a run left that failed before its first checkpoint."""
    for name in reversed(OUTPUTS):  # result.json last: a kill in between leaves what is known as ours
        path = work_dir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, for each log interval, each validation and each telemetry."""

    def __init__(self, work_dir: Path) -> None:
        self.path = work_dir / METRICS

    def append(self, kind: str, iteration: int, values: dict[str, Any]) -> None:
        """Adds a line; it is on disk when this returns."""
        line = json.dumps(plain({"kind": kind, "iteration": iteration, **values}), allow_nan=False)
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines so far, of one kind ("train", "val", "pseudo_labels") or all; no half-written one."""
        records = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    records.append(json.loads(line))
                except ValueError:
                    continue
        return [each for each in records if kind is None or each.get("kind") == kind]

    def rewind(self, iteration: int, validated: int, moved: tuple[int, int] | None = None) -> None:
        """Drops what a stopped run wrote after the checkpoint that is resumed.

        moved: the checkpoint's iteration when it was written, and now, with other images an iteration.
        """
        if not self.path.exists():
            return
        # Telemetry belongs to a validation: one that was cut short is made anew with it.
        limits = {"train": iteration, "val": validated, "pseudo_labels": validated}
        records = self.records()
        before, now = moved or (1, 1)
        for each in records:
            each["iteration"] = round(each["iteration"] * now / before)
        kept = [each for each in records if each["iteration"] <= limits[each["kind"]]]
        write_text(self.path, "".join(json.dumps(each) + "\n" for each in kept))


def describe(config: Config, config_path: str | Path, device: str) -> dict[str, Any]:
    """The part of result.json that is known before training starts."""
    method = (config.model.get("method") or {}).get("type", "supervised")
    return {
        "schema": 1,
        "status": "running",
        "method": method,
        "config": str(config_path),
        "git": git_hash(),
        "seed": config.randomness.seed,
        "versions": versions(),
        "device": device,
        "world_size": get_world_size(),
        "batch": {"labeled": None, "unlabeled": None},
        "iterations": 0,
        "bad_steps": 0,
        "images_seen": {"labeled": 0, "unlabeled": 0},
        "seconds": 0.0,
        "split": {},
        "test": {"score_thr": score_threshold(config), "evaluator": evaluator_name(config)},
        "metrics": {},
        "pseudo_labels": dict.fromkeys(PSEUDO_LABELS),
    }


def versions() -> dict[str, str | None]:
    """The versions of everything that can change a result."""
    modules = {name: importlib.import_module(name) for name in ("torch", "torchvision")}
    modules |= {name: importlib.import_module(name) for name in ("mmdet", "mmengine", "mmcv")}
    found: dict[str, str | None] = {name: str(m.__version__) for name, m in modules.items()}
    return {**found, "ssod": ssod.__version__, "python": platform.python_version()}


def git_hash() -> str | None:
    """The commit of this source tree, with `-dirty` after changes; None outside a repository."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "-uno") else commit


def score_threshold(config: Config) -> float | None:
    """The detector's score threshold in testing: 0.001 gives up to 1.3 AP more than 0.05."""
    detector = config.model.get("detector") or config.model
    test = detector.get("test_cfg") or {}
    value = (test.get("rcnn") or test).get("score_thr")
    return None if value is None else float(value)


def evaluator_name(config: Config) -> str:
    """The metric's type and the package that does its arithmetic."""
    evaluators = config.get("val_evaluator") or {}
    first = evaluators[0] if isinstance(evaluators, (list, tuple)) and evaluators else evaluators
    try:
        package = f"pycocotools {version('pycocotools')}"
    except PackageNotFoundError:
        package = "pycocotools"
    return f"{first.get('type')} ({package})" if first else "none"


def device_name() -> str:
    """The device that trains: the GPU's name, or the processor's architecture and thread count."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"

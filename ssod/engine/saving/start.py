"""Where a run lies and what it starts from: the beginning, a checkpoint, or its end."""

import secrets
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ssod.engine.config import default_work_dir
from ssod.engine.records import result
from ssod.engine.saving import checkpoints
from ssod.engine.saving.resume import check_length
from ssod.engine.saving.same_run import NAME, check_same_run
from ssod.errors import UserError


class Start(NamedTuple):
    """Where a run starts: at the checkpoint `source`, at its end ("finished"), or at the beginning (None)."""

    source: str | None
    seed: int


def work_dir_of(config_path: str | Path, resume: bool | str | Path) -> Path:
    """The work dir of a config for which none is named; UserError where that could be one of two.

    A run's own config.py trains again in `work_dirs/<its folder>_again`. With resume it means its own folder,
    or the other where that is a run of this very config and alone not at its end.
    """
    usual, own = default_work_dir(config_path), Path(config_path).parent
    before = result.read_result(own) if resume and Path(config_path).name == NAME else None
    if before is None:
        return usual
    again = result.read_result(usual) or {}
    ours = Path(again.get("config") or "").absolute() == Path(config_path).absolute()
    if not ours or again.get("status") == "done":
        return own
    if before.get("status") == "done":
        return usual
    raise UserError(f"--resume: {own} and {usual} both hold an unfinished run: name one with --work-dir")


def starting_point(
    work_dir: Path, config: Config, resume: bool | str | Path, seed: int | None = None
) -> Start:
    """Where a run starts, and its seed: the checkpoint's, else the config's, else one that is drawn.

    seed: the one that was asked for; UserError where the checkpoint is of another.
    """
    if any(work_dir.glob(result.STAGE_METRICS)):
        raise UserError(f"work dir {work_dir} holds a training in stages: choose another --work-dir")
    result.check_free(work_dir, bool(resume))
    given = None if isinstance(resume, bool) else Path(resume)
    source = given or work_dir / checkpoints.FOLDER / checkpoints.LAST
    if not resume or (given is None and not source.exists()):
        # A job that is put back into the queue says --resume from the start.
        if resume:
            result.check_free(work_dir, False)
            print(f"nothing to resume in {work_dir}: begins at 0")
        own = config.randomness.seed
        return Start(None, secrets.randbelow(2**31) if own is None else own)
    if given is None or given.resolve().is_relative_to(work_dir.resolve()):
        said = check_same_run(work_dir, config)
    else:
        said = ""
        result.check_free(work_dir, False)
    content: dict[str, Any] = checkpoints.load(source, lazily=True)
    if "optimizer" not in content:
        raise UserError(f"checkpoint {source} has no optimizer state: resume from {checkpoints.LAST}")
    check_length(config, source, content)
    own = content.get("meta", {}).get("seed", config.randomness.seed)
    if seed not in (None, own):
        raise UserError(
            f"checkpoint {source} is of a run with seed {own}, which stays: leave out --seed {seed}, or "
            "begin in another --work-dir"
        )
    status = (result.read_result(work_dir) or {}).get("status")
    finished = content.get("meta", {}).get("iter", 0) >= config.train_cfg.max_iters
    if finished and given is None and status == "done":
        return Start("finished", own)
    if said:
        print(said)
    return Start(str(source), own)

"""How far a run is, from the files of its folder, also while they are written."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssod.engine.records.result import STAGE_METRICS
from ssod.study.sweep.state import attempts, read_json, read_lines

TAIL = 1 << 16  # bytes of metrics.jsonl that are looked at first for the last lines,
LONGEST_TAIL = 1 << 24  # and at most: a pseudo_labels line of many classes is long
TELLING = ('"kind": "train"', '"kind": "val"')  # lines that say how far a run is


@dataclass(frozen=True)
class Progress:
    """How far a run is. ap: of the network to ship, 0 to 1 · eta: seconds · log: where to look."""

    status: str | None = None  # result.json's: running, stopped, failed, done; None: never begun
    iteration: int = 0
    ap: float | None = None
    eta: float | None = None
    error: str = ""
    attempts: int = 0
    log: Path | None = None


def progress(folder: Path, total: int) -> Progress:
    """What the files of a run's folder say; total: its iterations, of all stages."""
    result = read_json(folder / "result.json")
    stages = sorted(folder.glob(STAGE_METRICS))
    files = stages or [folder / "metrics.jsonl"]
    lines = [read_lines(_tail(file)) for file in files]
    iteration = sum(max((int(each.get("iteration", 0)) for each in some), default=0) for some in lines)
    if not stages:
        iteration = max(iteration, int(result.get("iterations") or 0))
    last = lines[-1] if lines else []
    step = next((each["seconds_per_step"] for each in reversed(last) if each.get("seconds_per_step")), None)
    lived = attempts(folder)
    done = result.get("status") == "done"
    return Progress(
        status=result.get("status"),
        iteration=total if done else min(iteration, total),
        ap=_result_ap(result) if done else _last_ap(last),
        eta=None if step is None or done else max(total - iteration, 0) * step,
        error=str(result.get("error") or ""),
        attempts=sum(each.get("event") == "start" for each in lived),
        log=_log(folder, stages, lived),
    )


def _log(folder: Path, stages: list[Path], lived: list[dict[str, Any]]) -> Path | None:
    """The training's log; where there is none yet, what the last job printed."""
    training = (stages[-1].parent if stages else folder) / "train.log"
    printed = [Path(each["log"]) for each in lived if "log" in each]
    return next((path for path in (training, *reversed(printed)) if path.exists()), None)


def _result_ap(result: dict[str, Any]) -> float | None:
    metrics = result.get("metrics") or {}
    network = metrics.get("teacher") or metrics.get("student") or {}
    return network.get("bbox_mAP")


def _last_ap(lines: list[dict[str, Any]]) -> float | None:
    """The last validation's AP of the teacher, or of the student where there is none."""
    for line in reversed(lines):
        if line.get("kind") == "val":
            return line.get("teacher/bbox_mAP", line.get("student/bbox_mAP"))
    return None


def _tail(path: Path) -> str:
    """The last whole lines of a file that tell how far a run is, as many as hold a step and a validation."""
    length, text = TAIL, ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            while True:
                file.seek(max(size - length, 0))
                text = file.read(length).decode("utf-8", "replace")
                text = text if size <= length else text.partition("\n")[2]
                if all(each in text for each in TELLING) or length >= min(size, LONGEST_TAIL):
                    break
                length *= 4
    except OSError:
        return ""
    return "\n".join(line for line in text.split("\n") if any(each in line[:200] for each in TELLING))

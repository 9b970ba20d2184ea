"""What a sweep writes before its first run: the list of runs, their configs, the splits they need."""

from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

from ssod.engine.records.result import plain, write_json
from ssod.engine.records.writing import write_text
from ssod.registry import register_all_modules
from ssod.study.sweep.definition import Definition, read_definition
from ssod.study.sweep.plan import Run, expand
from ssod.study.sweep.progress import progress
from ssod.study.sweep.state import PLACE, alone, read_json
from ssod.written_config import readable

CONFIGS = "configs"
LIST = "sweep.json"


def prepared_runs(definition: Definition, work_dir: Path, options: Mapping[str, Any]) -> list[Run]:
    """The runs of a sweep, whose list, configs and splits are on disk when this returns."""
    runs = expand(definition, work_dir, options)
    with alone(work_dir):
        for split in {run.split.name: run.split for run in runs if run.split is not None}.values():
            split.draw()
        for run in runs:
            path = config_path(work_dir, run)
            path.parent.mkdir(exist_ok=True)
            if run.folder.is_dir():  # its axes may be others than they were when it began
                write_place(run, definition.name)
            text = _as_text(run)
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)
        listed = [{**run.describe(definition.name), "folder": run.folder.name} for run in runs]
        write_json(work_dir / LIST, {"sweep": definition.name, "file": str(definition.path), "runs": listed})
    return runs


def write_place(run: Run, sweep: str) -> None:
    """Writes the run's run.json, unless it says so already; within `alone`."""
    content = run.describe(sweep)
    if read_json(run.folder / PLACE) != plain(content):
        write_json(run.folder / PLACE, content)


def _as_text(run: Run) -> str:
    """The run's config as a file; mmengine's own formatting takes a second for each."""
    lines = [f'"""{run.name}: written by tools/sweep.py, resolved."""', ""]
    for name, value in run.config.to_dict().items():
        lines.append(f"{name} = {pformat(readable(value), width=110, sort_dicts=False)}")
    return "\n".join(lines) + "\n"


def listing(
    path: str | Path, work_dir: str | Path | None = None, options: Mapping[str, Any] | None = None
) -> str:
    """The runs of a sweep file, a line each: name, iterations, and how far it is. Nothing is written."""
    register_all_modules()
    definition = read_definition(path)
    place = folder_of(definition, work_dir)
    runs = expand(definition, place, options or {})
    width = max(len(run.name) for run in runs)
    lines = []
    for run in runs:
        seen = progress(run.folder, run.total)
        lines.append(f"{run.name:<{width}}  {seen.iteration}/{run.total}  {seen.status or 'missing'}")
    return "\n".join(
        [*lines, f"{len(runs)} runs, {sum(run.twin for run in runs)} of them twins; work dir {place}"]
    )


def folder_of(definition: Definition, work_dir: str | Path | None) -> Path:
    """The work dir of a sweep: the one given, or `work_dirs/sweeps/<name>`."""
    return Path(work_dir or Path("work_dirs", "sweeps", definition.name)).absolute()


def config_path(work_dir: Path, run: Run) -> Path:
    """Where the resolved config of a run lies before the run has a copy of its own."""
    return work_dir / CONFIGS / f"{run.name}.py"

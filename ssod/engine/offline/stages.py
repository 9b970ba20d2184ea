"""STAC's stages from one config: teacher, labels, student; each resumable, and skipped where it is done."""

import gc
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process

from ssod.data.unlabeled import images_of
from ssod.engine.faults.data_policy import DataPolicy
from ssod.engine.faults.failures import known_failures
from ssod.engine.offline import labeling
from ssod.engine.offline.provenance import check_output, labeling_pipeline, provenance_of
from ssod.engine.offline.stage_plan import (
    Plan,
    student_config,
    teacher_config,
    training_provenance,
    unlabeled_dataset,
)
from ssod.engine.processes import on_all, on_main
from ssod.engine.records import result
from ssod.engine.records.console import clock
from ssod.engine.records.writing import write_text
from ssod.engine.saving import checkpoints
from ssod.engine.stop import StopSignal
from ssod.engine.testing import load_model, silence
from ssod.errors import UserError
from ssod.written_config import readable

LABELS = "pseudo.json"
STAGE = "stage.json"  # a stage's provenance, and the seconds that labeling took
Record = dict[str, Any]
# (work dir, config, config's path, resume) -> the run's result.json
TrainOne = Callable[[Path, Config, str | Path, bool], Record]


def train_stages(
    work_dir: Path,
    config: Config,
    config_path: str | Path,
    resume: bool | str | Path,
    train_one: TrainOne,
    stop: StopSignal,
) -> Record:
    """The result of the last student, with `stages`: what each stage was and how long it took.

    A stage whose output is there is skipped if its provenance matches and refused if not. resume: goes on
    inside the stage that was interrupted. train_one: trains one config in one folder · stop: of all stages.

    Raises UserError for bad input, and what `train_one` raises.
    """
    if not isinstance(resume, bool):
        raise UserError(
            f"--resume {resume}: a training in stages goes on from its work dir, with --resume alone"
        )
    plan = Plan.of(config)
    on_main(lambda: _check_work_dir(work_dir, resume))
    held = on_all(lambda: result.lock(work_dir) if is_main_process() else None)
    try:
        with known_failures(work_dir):
            return _Run(work_dir, config, config_path, resume, plan, train_one, stop).run()
    finally:
        if held is not None:
            held.close()


def _check_work_dir(work_dir: Path, resume: bool) -> None:
    if (work_dir / checkpoints.FOLDER).exists():
        raise UserError(f"work dir {work_dir} holds a run without stages: choose another --work-dir")
    result.check_free(work_dir, resume)


class _Run:
    """One training in stages."""

    def __init__(
        self,
        work_dir: Path,
        config: Config,
        config_path: str | Path,
        resume: bool,
        plan: Plan,
        train_one: TrainOne,
        stop: StopSignal,
    ) -> None:
        self.work_dir = work_dir
        self.config = config
        self.config_path = config_path
        self.resume = resume
        self.plan = plan
        self.train_one = train_one
        self.stop = stop
        self.stages: list[Record] = []
        self.record = result.describe(config, config_path, result.device_name())
        self.owns = False  # before that, result.json is still that of an earlier call

    def run(self) -> Record:
        """Teacher, then labels and student as often as there are rounds."""
        last_config, folder = self.config, self.work_dir
        try:
            for name in self.plan.names():
                if self.stop.agreed():  # it came between two stages
                    return self._write("stopped")
                before, folder = folder, self.work_dir / name
                if name.endswith("labels"):
                    status = self._label(folder, last_config, before)
                else:
                    last_config = self._config_of(name, before)
                    status = self._train(folder, last_config)
                if status == "stopped":
                    return self._write("stopped")
        except BaseException as error:
            one_line = error.one_line if isinstance(error, UserError) else str(error)
            if self.owns:
                self._write("failed", error=f"{type(error).__name__}: {one_line}")
            raise
        earlier: Record = on_main(lambda: result.read_result(self.work_dir)) or {}
        if not self.owns and earlier.get("status") == "done":
            return earlier
        return self._write("done")

    def _config_of(self, name: str, before: Path) -> Config:
        if name.endswith("teacher"):
            return teacher_config(self.config, self.plan.teacher)
        return student_config(self.config, before / LABELS)

    # ------------------------------------------------------------ stages 1 and 3

    def _train(self, folder: Path, config: Config) -> str:
        """Trains in the folder, unless that is done; "done" or "stopped"."""
        provenance = on_main(lambda: training_provenance(config))
        done = on_main(lambda: self._is_trained(folder, provenance))
        self._announce(folder, done)
        if done:
            record = result.read_result(folder) or {}
        else:
            record = self.train_one(folder, config, self.config_path, self.resume)
            gc.collect()  # the last stage's network, optimizer and loader workers
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if config.model.get("method"):
            kept = ("config", "method")
            self.record.update({key: value for key, value in record.items() if key not in kept})
        self._note(folder, record["status"], record["seconds"], iterations=record["iterations"])
        return str(record["status"])

    def _is_trained(self, folder: Path, provenance: Record) -> bool:
        """Whether the stage is done; its provenance is noted where it has to be begun."""
        record = result.read_result(folder)
        kept = record is not None and (folder / checkpoints.FOLDER / checkpoints.LAST).exists()
        noted = _read_note(folder).get("provenance")
        if kept and noted != provenance:
            raise UserError(_mismatch(folder, noted or {}, provenance))
        if not kept:
            folder.mkdir(parents=True, exist_ok=True)
            result.write_json(folder / STAGE, {"provenance": provenance})
        return kept and (record or {}).get("status") == "done"

    # ------------------------------------------------------------ stage 2

    def _label(self, folder: Path, config: Config, trained: Path) -> str:
        """Labels the unlabeled images with the network trained before, unless that is done."""
        checkpoint = trained / checkpoints.FOLDER / checkpoints.LAST
        network = "teacher" if config.model.get("teacher") else "student"
        images = images_of(unlabeled_dataset(self.config))
        provenance = on_main(lambda: provenance_of(config, checkpoint, images, self.plan.min_score, network))
        out = folder / LABELS
        done = on_main(lambda: check_output(out, provenance))
        self._announce(folder, done)
        began, before = time.perf_counter(), float(_read_note(folder).get("seconds", 0.0))
        status = "done"
        if not done:
            folder.mkdir(parents=True, exist_ok=True)
            silence()
            model, _ = load_model(config, checkpoint)
            loader = config.val_dataloader
            status = labeling.label_images(
                model,
                images,
                out,
                provenance,
                labeling_pipeline(config),
                labeling.categories_of(config),
                batch_size=loader.get("batch_size", 1),
                num_workers=loader.get("num_workers", 0),
                resume=self.resume,
                stop=self.stop,
                most_bad=DataPolicy.of(self.config).most_bad(len(images.images)),
            )
            before += time.perf_counter() - began
            if is_main_process():
                result.write_json(folder / STAGE, {"seconds": round(before, 3)})
        if status == "done" and is_main_process():
            print(labeling.summary(out))
        self._note(folder, status, round(before, 3))
        return status

    # ------------------------------------------------------------ what is said and written

    def _announce(self, folder: Path, done: bool) -> None:
        if is_main_process():
            names = self.plan.names()
            number = names.index(folder.name) + 1
            what = {"teacher": "train the teacher", "labels": "label", "student": "train the student"}
            state = "done before, skipped" if done else str(folder)
            print(f"stage {number} of {len(names)}, {what[folder.name.rpartition('_')[2]]}: {state}")
        if not done:
            self._own()

    def _own(self) -> None:
        """Writes that the run is under way; at first, also its config, from which it can be repeated."""
        first, self.owns = not self.owns, True
        self._write("running")
        if first and is_main_process():
            config = Config(readable(self.config.to_dict()))
            config.pop("launcher", None)
            write_text(self.work_dir / "config.py", config.pretty_text)

    def _note(self, folder: Path, status: str, seconds: float, **more: Any) -> None:
        self.stages.append({"name": folder.name, "status": status, "seconds": seconds, **more})

    def _write(self, status: str, **more: Any) -> Record:
        """The record, written to the work dir's result.json."""
        seconds = round(sum(each["seconds"] for each in self.stages), 3)
        self.record.update(status=status, seconds=seconds, stages=self.stages, **more)
        if is_main_process():
            self.work_dir.mkdir(parents=True, exist_ok=True)
            result.write_json(self.work_dir / result.RESULT, self.record)
            if status == "done":
                print(f"{len(self.stages)} stages in {clock(seconds)}, files: {self.work_dir}")
        return self.record


def _read_note(folder: Path) -> Record:
    """The folder's stage.json; empty if there is none that can be read."""
    try:
        content = json.loads((folder / STAGE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _mismatch(folder: Path, noted: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """One line on a stage that was trained with something else."""
    words = {
        "config_sha256": "another config (model, data, optimizer, schedule, seed or iterations)",
        "split_sha256": "other labeled images",
        "labels_sha256": "other pseudo labels",
    }
    what = next((words[key] for key in words if noted.get(key) != provenance.get(key)), "other settings")
    return f"{folder} was trained with {what}: remove it to train it again, or choose another --work-dir"

"""The hook that keeps a run's result.json, metrics.jsonl and curves.png."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ssod.engine.records import result
from ssod.engine.records.console import boxes_per_image
from ssod.engine.records.curves import draw_curves
from ssod.engine.records.event_files import TensorBoard
from ssod.errors import UserError


class Recorder(Hook):  # type: ignore[misc]
    """Keeps result.json, metrics.jsonl and curves.png up to date."""

    priority = "LOWEST"

    def __init__(self, record: dict[str, Any], work_dir: Path) -> None:
        self.record = record
        self.work_dir = work_dir
        self.metrics = result.MetricsFile(work_dir)
        self.began = time.perf_counter()
        self.seconds_before = 0.0
        self.drawn = 0  # records in curves.png
        self.measured = False  # boxes an image are telemetry's, on fixed images, where there is any
        self.owns = False  # before that, result.json is still that of the run which is resumed

    def before_train(self, runner: Any) -> None:
        """On resume, takes up where the checkpoint was written."""
        hub = runner.message_hub
        self.seconds_before = hub.get_info("seconds", 0.0)
        validated = hub.get_info("validated_iter", 0)
        if is_main_process():
            self.metrics.rewind(runner.iter, validated, runner.moved)
        for backend in runner.visualizer._vis_backends.values():
            if isinstance(backend, TensorBoard):  # a validation made up for is of the checkpoint's own step
                backend.void_from = runner.iter + 1
        for line in self.metrics.records("val"):
            self._take_metrics({k: v for k, v in line.items() if "/" in k})
        for line in self.metrics.records("pseudo_labels"):
            self._take_pseudo_labels(line)
        self._count_bad_steps(runner)
        self.write("running", runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Counts the step: what fails later is written down with those before it."""
        self.record["iterations"] = runner.iter + 1

    def after_bad_step(self, runner: Any, text: str) -> None:
        """Counts a step that was left out."""
        self._count_bad_steps(runner)

    def after_scalars(self, runner: Any, iteration: int, scalars: dict[str, float]) -> None:
        """Adds a line to metrics.jsonl."""
        boxes = boxes_per_image(scalars)
        if boxes is not None and not self.measured:
            self.record["pseudo_labels"]["boxes_per_image"] = boxes
        if is_main_process():
            self.metrics.append("train", iteration, scalars)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Adds a line to metrics.jsonl and draws the curves again."""
        self._take_metrics(metrics or {})
        if is_main_process():
            self.metrics.append("val", runner.iter, metrics or {})
            self.write("running", runner.iter)
            self._draw()

    def after_pseudo_labels(self, runner: Any, iteration: int, values: dict[str, float]) -> None:
        """Adds a line to metrics.jsonl; result.json has the last values of what teaches classes."""
        self._take_pseudo_labels(result.plain(values))
        if is_main_process():
            self.metrics.append("pseudo_labels", iteration, values)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Puts the seconds so far where a resumed run finds them."""
        checkpoint["message_hub"]["runtime_info"]["seconds"] = self.seconds
        checkpoint["message_hub"]["resumed_keys"]["seconds"] = True

    def after_train(self, runner: Any) -> None:
        """Draws the curves a last time."""
        self.record["iterations"] = runner.iter
        self._count_bad_steps(runner)
        if is_main_process():
            self._draw()

    @property
    def seconds(self) -> float:
        """Seconds of training and validation, those before a stop included."""
        return self.seconds_before + time.perf_counter() - self.began

    def _count_bad_steps(self, runner: Any) -> None:
        self.record["bad_steps"] = runner.message_hub.get_info("bad_steps", 0)

    def _draw(self) -> None:
        """Draws the curves, unless nothing was added since."""
        records = self.metrics.records()
        if len(records) != self.drawn:
            draw_curves(records, self.work_dir / "curves.png")
        self.drawn = len(records)

    def _take_metrics(self, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            network, _, name = key.partition("/")
            self.record["metrics"].setdefault(network, {})[name] = value

    def _take_pseudo_labels(self, values: Mapping[str, float | None]) -> None:
        known = {name: values.get(name) for name in result.PSEUDO_LABELS}
        if known["boxes_per_image"] is not None:
            self.record["pseudo_labels"], self.measured = known, True

    def fail(self, error: BaseException) -> None:
        """Writes that the run failed, and of what."""
        if self.owns:
            one_line = error.one_line if isinstance(error, UserError) else str(error)
            with suppress(OSError):  # what ended the run may be that nothing can be written
                self.write("failed", error=f"{type(error).__name__}: {one_line}")

    def write(self, status: str, iteration: int | None = None, **more: Any) -> None:
        """Writes result.json."""
        self.owns, record = True, self.record
        record.update(status=status, seconds=round(self.seconds, 3), **more)
        if iteration is not None:
            record["iterations"] = iteration
        images = record["iterations"] * record["world_size"]
        record["images_seen"] = {k: images * (count or 0) for k, count in record["batch"].items()}
        if is_main_process():
            result.write_json(self.work_dir / result.RESULT, record)

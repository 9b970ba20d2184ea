"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, a table at the end."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table

BOX_KEYS = ("num_boxes_cls", "num_boxes_box", "num_boxes_candidates")


def boxes_per_image(scalars: dict[str, Any]) -> float | None:
    """The pseudo boxes per unlabeled image in a log record; None without pseudo labels."""
    others = sorted(key for key in scalars if key.startswith("num_boxes"))
    values = (scalars.get(key) for key in (*BOX_KEYS, *others))
    return next((value for value in values if value is not None), None)


def clock(seconds: float) -> str:
    """A duration as 2:03:04, or 3:04 below an hour."""
    minutes, second = divmod(round(max(seconds, 0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class Reporter(Hook):  # type: ignore[misc]
    """Shows progress, remaining time, loss, boxes per image and the last AP of each network."""

    priority = "LOWEST"

    def __init__(self) -> None:
        # The stream itself: prints of pycocotools are redirected while the bar is alive.
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.progress: Progress | None = None
        self.loss = self.boxes = self.accuracy = ""
        self.train_seconds = self.val_seconds = 0.0
        self.steps = self.validations = 0
        self.mark = 0.0

    def say(self, text: str) -> None:
        """Prints one line, above the bar if there is one."""
        self.console.print(text, markup=False)

    def before_train(self, runner: Any) -> None:
        """Starts the bar and the clock."""
        self.mark = time.perf_counter()
        if self.console.is_terminal:
            count = "{task.description} {task.completed:.0f}/{task.total:.0f}"
            columns = (
                TextColumn(count, table_column=Column(no_wrap=True)),
                BarColumn(bar_width=12),
                TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
            )
            self.progress = Progress(*columns, console=self.console, transient=True)
            self.bar = self.progress.add_task(
                "training", total=runner.max_iters, completed=runner.iter, text=""
            )
            self.progress.start()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Moves the bar."""
        now = time.perf_counter()
        self.train_seconds, self.mark = self.train_seconds + now - self.mark, now
        self.steps += 1
        if self.progress is not None:
            text = self._text(runner, runner.iter + 1)
            self.progress.update(self.bar, completed=runner.iter + 1, text=text)

    def after_scalars(self, runner: Any, iteration: int, scalars: dict[str, float]) -> None:
        """Notes the scalars; where nobody watches, prints a line."""
        self.loss = f"loss {scalars['loss']:.4g}" if "loss" in scalars else ""
        boxes = boxes_per_image(scalars)
        self.boxes = "" if boxes is None else f"boxes/image {boxes:.1f}"
        if self.progress is None:
            place = f"{iteration}/{runner.max_iters}"
            rate = f"lr {scalars['lr']:.3g}"
            self.say("  ".join(filter(None, (place, rate, self._text(runner, iteration)))))

    def after_bad_step(self, runner: Any, text: str) -> None:
        """Prints a step that was left out."""
        self.say(f"step skipped: {text}")

    def after_notice(self, runner: Any, text: str) -> None:
        """Prints what the user should know of this run."""
        self.say(text)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Shows how far a validation is."""
        if self.progress is not None:
            text = f"validating {batch_idx + 1}/{len(runner.val_dataloader)}"
            self.progress.update(self.bar, text=text)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Notes and prints the AP of each network."""
        now = time.perf_counter()
        self.val_seconds, self.mark = self.val_seconds + now - self.mark, now
        self.validations += 1
        found = {key.split("/")[0]: ap for key, ap in (metrics or {}).items() if key.endswith("/bbox_mAP")}
        self.accuracy = "  ".join(f"AP {name} {100 * ap:.1f}" for name, ap in found.items())
        self.say(f"{runner.iter}/{runner.max_iters}  validation: {self.accuracy}")

    def after_pseudo_labels(self, runner: Any, iteration: int, values: dict[str, float]) -> None:
        """Prints how good the pseudo labels are where their truth is known."""
        names = {"precision_50": "precision", "recall_50": "recall"}
        found = {name: values[key] for key, name in names.items() if math.isfinite(values[key])}
        if found:
            said = "  ".join(f"{name} {100 * value:.0f} %" for name, value in found.items())
            boxes = values["boxes_per_image"]
            self.say(f"{iteration}/{runner.max_iters}  pseudo labels: {said}  boxes/image {boxes:.1f}")

    def close(self) -> None:
        """Takes the bar away."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def _text(self, runner: Any, iteration: int) -> str:
        return "  ".join(
            filter(
                None,
                (
                    f"eta {clock(self._left(runner, iteration))}",
                    self.loss,
                    self.boxes,
                    self.accuracy,
                ),
            )
        )

    def _left(self, runner: Any, iteration: int) -> float:
        """Seconds to go, validations included."""
        left = runner.max_iters - iteration
        seconds: float = left * self.train_seconds / max(self.steps, 1)
        if runner.val_loop is not None and self.validations:
            interval = runner.train_loop.val_interval
            validations = -(-runner.max_iters // interval) - iteration // interval
            seconds += validations * self.val_seconds / self.validations
        return seconds


class ImageCounter:
    """How many images of a job are done: a bar on a terminal, elsewhere a line every few seconds.

    title: what is done to them · total, done: images in all, and before this began · interval: seconds
    between two lines · quiet: shows nothing, as all processes but the first should.
    """

    def __init__(
        self, title: str, total: int, done: int = 0, interval: float = 10.0, quiet: bool = False
    ) -> None:
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet)
        self.title, self.total, self.done, self.interval = title, total, done, interval
        self.began = self.said = time.perf_counter()
        self.before = done
        self.progress: Progress | None = None
        if self.console.is_terminal and not quiet:
            columns = (
                TextColumn("{task.description} {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[text]}"),
            )
            self.progress = Progress(*columns, console=self.console, transient=True)
            self.bar = self.progress.add_task(title, total=total, completed=done, text="")
            self.progress.start()

    def __enter__(self) -> "ImageCounter":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.progress is not None:
            self.progress.stop()

    def say(self, text: str) -> None:
        """Prints one line, above the bar if there is one."""
        self.console.print(text, markup=False)

    def advance(self, count: int) -> None:
        """Counts images that are done now."""
        self.done = min(self.done + count, self.total)
        now = time.perf_counter()
        seconds = (now - self.began) / max(self.done - self.before, 1) * (self.total - self.done)
        text = f"eta {clock(seconds)}"
        if self.progress is not None:
            self.progress.update(self.bar, completed=self.done, text=text)
        elif now - self.said >= self.interval:
            self.said = now
            self.say(f"{self.title} {self.done}/{self.total}  {text}")


def metrics_table(metrics: dict[str, dict[str, float]], title: str = "") -> Table:
    """A table with a row for each network: AP, AP50, AP75, and by size."""
    table = Table(title=title or None, title_justify="left")
    columns = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    table.add_column("network")
    for name in columns:
        table.add_column(name.removeprefix("m").replace("AP_", "AP "), justify="right")
    for network, values in metrics.items():
        cells = [values.get(f"bbox_{name}") for name in columns]
        # COCO's evaluation says -1 where there is nothing of that size.
        shown = ["-" if v is None or v < 0 else f"{100 * v:.1f}" for v in cells]
        table.add_row(network, *shown)
    return table


def final_report(console: Console, result: dict[str, Any], work_dir: Path) -> None:
    """Prints the table of a finished run, how long it took and where its files are."""
    if result["metrics"]:
        console.print(metrics_table(result["metrics"]))
    seen = result["images_seen"]
    console.print(
        f"{result['status']} after {result['iterations']} iterations in "
        f"{clock(result['seconds'])}, "
        f"{seen['labeled']} labeled and {seen['unlabeled']} unlabeled images seen",
        markup=False,
    )
    bad = result.get("bad_images") or {}
    if bad.get("count"):
        console.print(f"{bad['count']} images could not be read: they are named in train.log", markup=False)
    console.print(f"files: {work_dir}", markup=False)

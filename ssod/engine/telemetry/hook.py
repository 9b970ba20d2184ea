"""The hook that measures pseudo labels at each validation: figures, plots, and why there are none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop

from ssod.data.hidden_truth import HiddenTruth
from ssod.engine.evaluate import unwrap
from ssod.engine.processes import on_main
from ssod.engine.records.result import write_json
from ssod.engine.saving import random_state
from ssod.engine.telemetry import causes, plots, record
from ssod.engine.telemetry.evidence import gather
from ssod.engine.telemetry.measure import FLOOR, Measurement, labeler_of, measure, resting
from ssod.engine.telemetry.sample import Sample
from ssod.errors import UserError
from ssod.models.student import detect
from ssod.registry import HOOKS

FOLDER = "pseudo_labels"
FEW = 16  # images that are looked at between validations, when no box is left


@HOOKS.register_module()
class PseudoLabelTelemetry(Hook):  # type: ignore[misc]
    """Precision, recall and IoU of the pseudo labels against hidden truth; and what removes them.

    truth: the COCO file with the annotations of the unlabeled images, which training never sees; None takes
    the config's `hidden_truth`. Without either, boxes are counted and scores binned; with a warning where
    the config's can't be used · num_images: unlabeled images that are looked at, spread over the data, the
    same ones in the same views throughout; 0 switches all off · interval: every so many validations ·
    batch_size: images at once, at most as many unlabeled ones as in a step.

    The first process measures; the others wait for it in their next step. Gives its values to every hook
    with an `after_pseudo_labels(runner, iteration, values)`, the truth to those with an
    `after_hidden_truth(runner, truth)`, and to the visualizer; writes `pseudo_labels/telemetry.json`,
    `calibration.png` and `spread.png`. Raises UserError for wrong options and an unusable `truth`.
    """

    priority = "LOW"

    def __init__(
        self, truth: str | None = None, num_images: int = 64, interval: int = 1, batch_size: int = 8
    ) -> None:
        if num_images < 0 or interval < 1 or batch_size < 1:
            raise UserError(
                f"PseudoLabelTelemetry: num_images={num_images}, interval={interval}, "
                f"batch_size={batch_size}; use 0 images (off) or more, at least 1 of the others"
            )
        self.truth_file = truth
        self.num_images, self.interval, self.batch_size = num_images, interval, batch_size
        self.truth: HiddenTruth | None = None
        self.sample: Sample | None = None
        self.classes: tuple[str, ...] = ()
        self.said: set[str] = set()

    def before_run(self, runner: Any) -> None:
        """Chooses the images and reads their truth; nothing in a supervised run.

        Before training, where the rank watch does not count yet: COCO's file takes the first process half a
        minute in which no thread of it can give a sign of life.
        """
        if not isinstance(runner._train_loop, BaseLoop):  # a validation or a test alone
            return
        dataset = runner.train_dataloader.dataset
        several = len(getattr(dataset, "cumulative_sizes", None) or ()) > 1
        if self.num_images == 0 or getattr(unwrap(runner.model), "method", None) is None or not several:
            return
        on_main(lambda: self._prepare(runner, dataset))

    def _prepare(self, runner: Any, dataset: Any) -> None:
        """On the first process alone, whose UserError reaches all."""
        self.classes = tuple(dataset.metainfo.get("classes") or ())
        loader = runner.train_dataloader
        unlabeled = sum(getattr(loader.sampler, "counts", ())[1:]) or 1
        self.sample = Sample(dataset, loader.collate_fn, self.num_images, min(self.batch_size, unlabeled))
        path = self.truth_file or runner.cfg.get("hidden_truth")
        if path is None:
            return
        try:
            self.truth = self._read_truth(path, dataset, self.sample)
        except UserError as error:
            if self.truth_file is not None:
                raise
            self._say(runner, "truth", f"pseudo labels are measured without truth: {error.one_line}")
            return
        runner.call_hook("after_hidden_truth", truth=self.truth)

    def _read_truth(self, path: str, dataset: Any, sample: Sample) -> HiddenTruth:
        truth = HiddenTruth(path, self.classes)
        images = [dataset.get_data_info(index)["img_path"] for index in sample.indices]
        if all(truth.of(image) is None for image in images):
            raise UserError(
                f"hidden truth {path} names none of {len(images)} unlabeled images, such as {images[0]}: "
                "name the file with their annotations, or set hidden_truth=None"
            )
        return truth

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Measures, writes and draws; at every `interval`-th validation and the last."""
        if self.sample is None or not self._is_due(runner):
            return
        began = time.perf_counter()
        found = self._measure(runner)
        if found is None:
            return
        values = record.line(found, self.classes)
        bound = getattr(unwrap(runner.model).method, "box_max_spread", None)
        content = record.details(found, runner.iter, time.perf_counter() - began, bound)
        folder = Path(runner.work_dir, FOLDER)
        folder.mkdir(exist_ok=True)
        write_json(folder / "telemetry.json", content)
        plots.draw_calibration(content["calibration"], folder / "calibration.png")
        if content["spread"] is not None:
            plots.draw_spread(content["spread"], folder / "spread.png")
        runner.visualizer.add_scalars(record.scalars_of(values), step=runner.iter)
        runner.call_hook("after_pseudo_labels", iteration=runner.iter, values=values)
        self._explain(runner, found)

    def after_scalars(self, runner: Any, iteration: int, scalars: dict[str, float]) -> None:
        """Where no box was left in a whole log interval: says why, once."""
        if self.sample is None:
            return
        resting_until = causes.burn_in(
            unwrap(runner.model).method.unsup_weight, runner.iter, runner.max_iters
        )
        if resting_until is not None:
            self._say(runner, "burn-in", resting_until)
            return
        empty = {
            key for key, value in scalars.items()
            if key.startswith("num_boxes_") and value == 0 and key not in self.said
        }  # fmt: skip
        if empty:
            self.said |= empty  # not again at each interval: the next validation looks in any case
            found = self._measure(runner, FEW)
            if found is not None:
                self._explain(runner, found)

    def _is_due(self, runner: Any) -> bool:
        """By the iteration, not by a count, so that a resumed run measures at the same places."""
        number = round(runner.iter / runner.train_loop.val_interval)
        return number % self.interval == 0 or bool(runner.iter >= runner.max_iters)

    def _measure(self, runner: Any, num_images: int | None = None) -> Measurement | None:
        assert self.sample is not None
        model = unwrap(runner.model)
        with random_state.preserved():
            random_state.seed_all(0)  # of the jitter
            batches = self.sample.batches(num_images)
            return measure(model, batches, self.truth, len(self.classes), runner.iter)

    def _explain(self, runner: Any, found: Measurement) -> None:
        """Says what removes all boxes of a part, and whether classes are wrong; nothing during burn-in.

        Nor where it ends: the teacher that labels from now on has not averaged anything yet.
        """
        model = unwrap(runner.model)
        ramp = model.method.unsup_weight
        if ramp(runner.iter) == 0 or runner.iter == ramp.start > 0:
            return
        if causes.empty_parts(found):
            tops = self._student_tops(runner)
            known = gather(model, found, tops, runner.iter, self.classes)
            for kind, text in causes.explain(known).items():
                self._say(runner, kind, text)
        wrong = causes.wrong_classes(found)
        if wrong is not None:
            self._say(runner, "classes", wrong)

    def _student_tops(self, runner: Any) -> Any:
        """(C,) the student's highest scores where a teacher labels, else nan; from a few images."""
        assert self.sample is not None
        model = unwrap(runner.model)
        highest = np.full(max(len(self.classes), 1), np.nan)  # one for all of data that name no classes
        if labeler_of(model) != "teacher":
            return highest
        with random_state.preserved(), resting(model):
            for batch in self.sample.batches(FEW):
                weak = model.data_preprocessor(batch, True)["inputs"].weak
                if weak is not None:
                    labels = detect(model.student, weak, FLOOR)
                    scores, numbers = (each[labels.valid].cpu() for each in (labels.scores, labels.classes))
                    places = numbers.clamp(max=len(highest) - 1).numpy()
                    np.fmax.at(highest, places, scores.double().numpy())
        return highest

    def _say(self, runner: Any, kind: str, text: str) -> None:
        """On the console and in the log, each kind once."""
        if kind in self.said or not is_main_process():
            return
        self.said.add(kind)
        runner.logger.warning(text)
        runner.call_hook("after_notice", text=text)

"""When training and validation happen: iteration by iteration, resumed where it stopped."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.runner import BaseLoop, IterBasedTrainLoop

from ssod.engine import evaluate
from ssod.engine.faults.data_policy import DataPolicy
from ssod.engine.loading import beside_the_step
from ssod.engine.optim import iterations_a_step
from ssod.engine.saving import random_state
from ssod.registry import LOOPS


class StopRequested(Exception):  # noqa: N818  no error: a signal that travels upwards
    """Raised by a hook during validation, to leave it at once: a signal wants the run to stop."""


def _seeded(dataloader: Any) -> Any:
    """The loader's config with its dataset in `SeededDraws`; what is built already stays as it is."""
    dataset = dataloader.get("dataset") if isinstance(dataloader, Mapping) else None
    if not isinstance(dataset, Mapping):
        return dataloader
    return {**dataloader, "dataset": {"type": "SeededDraws", "dataset": dataset}}


@LOOPS.register_module()
class SemiTrainLoop(IterBasedTrainLoop):  # type: ignore[misc]
    """Training for `max_iters` iterations, with a validation every `val_interval` and at the end.

    dry_run: two validation images go through model and metric before the first step. A resumed run
    takes up the sampler's position and the random state, and makes up for a validation that the stop
    cut short. The views of a step depend on the seed, the iteration, the rank
    and the place in the batch (`SeededDraws`), not on the number of loader workers nor on a resume.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dry_run: bool = True,
    ) -> None:
        if isinstance(dataloader, dict) and DataPolicy.of(runner.cfg).on_bad_image == "skip":
            # Here, not in the config: what a run writes down are the datasets as they were given.
            wrapped = {"type": "ReplaceBadImages", "dataset": dataloader["dataset"]}
            dataloader = {**dataloader, "dataset": wrapped}
        super().__init__(runner, _seeded(dataloader), max_iters, val_begin, val_interval)
        self.dry_run = dry_run
        # Of the checkpoint that is resumed, this process's:
        self.random_state: dict[str, Any] | None = None
        self.sampler_state: dict[str, Any] | None = None

    def run(self) -> Any:
        """The trained model."""
        if self.dry_run and self.runner.val_loop is not None:
            self.runner.val_loop.dry_run()
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        if self._iter > 0:
            self._take_up()
        device = next(self.runner.model.parameters()).device
        batches = beside_the_step(self.dataloader_iterator, device)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            if not self.stop_training:
                self._validate_if_due()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _take_up(self) -> None:
        """Brings loader and random generators to where the checkpoint was written."""
        if self.sampler_state is not None:
            self.dataloader.sampler.load_state_dict(self.sampler_state, self._iter)
        else:
            self.dataloader_iterator.skip_iter(self._iter)
        # Making an iterator draws a number that the saved state is past: restore after.
        self.dataloader_iterator._ensure_iterator()
        if self.random_state is not None:
            random_state.restore(self.random_state)
        self._validate_if_due()

    def _validate_if_due(self) -> None:
        """Validates if this iteration asks for it and hasn't been validated before a stop."""
        # With gathered gradients after the optimizer's step, so that a stop here cuts none.
        gathered = iterations_a_step(self.runner.optim_wrapper)
        due = self._iter % gathered == 0 and self._iter % self.val_interval < gathered
        due = due or self._iter == self._max_iters
        done = self.runner.message_hub.get_info("validated_iter") == self._iter
        if self.runner.val_loop is None or self._iter < self.val_begin or not due or done:
            return
        try:
            self.runner.val_loop.run()
        except StopRequested:
            self.stop_training = True
            return
        self.runner.message_hub.update_info("validated_iter", self._iter)


@LOOPS.register_module()
class SemiValLoop(BaseLoop):  # type: ignore[misc]
    """Validation of teacher and student in one pass over the images; `run` returns the metrics.

    which: the networks to evaluate, ("teacher",) say; None for all there are. Training's random
    state is left as it was.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        which: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(runner, dataloader)
        self.networks = evaluate.choose_networks(runner.model, which)
        self.evaluators = evaluate.build_evaluators(evaluator, self.networks, self.dataloader.dataset)

    def run(self) -> dict[str, float]:
        """`{"teacher/bbox_mAP": ..., "student/bbox_mAP": ..., ...}`."""
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        with random_state.preserved():
            metrics = evaluate.evaluate(
                self.runner.model,
                self.dataloader,
                self.evaluators,
                len(self.dataloader.dataset),
                self.runner.logger.info,
                lambda number: self.runner.call_hook("after_val_iter", batch_idx=number),
            )
            self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics

    def dry_run(self) -> None:
        """Two images through all a validation needs; raises UserError where it can't work."""
        with random_state.preserved():
            evaluate.dry_run(self.runner.model, self.dataloader, self.evaluators)

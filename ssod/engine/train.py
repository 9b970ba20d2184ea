"""Training a config: what tools/train.py calls, and a test calls in its own process."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import Hook

from ssod.engine import checkpoints, result
from ssod.engine.config import default_work_dir, load_config, use_mixed_precision
from ssod.engine.console import Reporter, boxes_per_image, final_report
from ssod.engine.curves import draw_curves
from ssod.engine.evaluate import prints_to
from ssod.engine.loops import StopRequested
from ssod.engine.runner import (
    SemiRunner,
    build_runner,
    choose_launcher,
    start_processes,
    warnings_to_log,
)
from ssod.errors import UserError
from ssod.registry import register_all_modules


class StopSignal(Hook):  # type: ignore[misc]
    """Ends training after the step in which SIGINT or SIGTERM arrived; a second one ends it at once."""

    priority = "LOWEST"

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self.received = False
        self.stopped = False
        self.before: dict[int, Any] = {}

    def listen(self) -> None:
        """Takes the signals over; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._receive)

    def ignore(self) -> None:
        """Gives the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True
        self.ignore()  # whoever repeats it doesn't want to wait for a checkpoint

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops the loop; several processes agree on the step every `interval` iterations."""
        if get_world_size() > 1:
            if (runner.iter + 1) % self.interval:
                return
            flag = torch.tensor(int(self.received), device=next(runner.model.parameters()).device)
            all_reduce(flag)
            self.received = bool(flag)  # sync: once per `interval`, and only with several processes
        if self.received:
            self.stopped = runner.train_loop.stop_training = True

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Leaves a validation at once; the resumed run makes up for it."""
        if self.received and get_world_size() == 1:
            self.stopped = True
            raise StopRequested


class Recorder(Hook):  # type: ignore[misc]
    """Keeps result.json, metrics.jsonl and curves.png up to date."""

    priority = "LOWEST"

    def __init__(self, record: dict[str, Any], work_dir: Path) -> None:
        self.record = record
        self.work_dir = work_dir
        self.metrics = result.MetricsFile(work_dir)
        self.began = time.perf_counter()
        self.seconds_before = 0.0

    def before_train(self, runner: Any) -> None:
        """Adds what the data tell; on resume, takes up where the checkpoint was written."""
        self.record.update(result.describe_data(runner.train_dataloader))
        hub = runner.message_hub
        self.seconds_before = hub.get_info("seconds", 0.0)
        validated = hub.get_info("validated_iter", 0)
        if is_main_process():
            self.metrics.rewind(runner.iter, validated)
        for line in self.metrics.records("val"):
            self._take_metrics({k: v for k, v in line.items() if "/" in k})
        self.write("running", runner.iter)

    def after_scalars(self, runner: Any, iteration: int, scalars: dict[str, float]) -> None:
        """Adds a line to metrics.jsonl."""
        boxes = boxes_per_image(scalars)
        if boxes is not None:
            self.record["pseudo_labels"]["boxes_per_image"] = boxes
        if is_main_process():
            self.metrics.append("train", iteration, scalars)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Adds a line to metrics.jsonl and draws the curves again."""
        self._take_metrics(metrics or {})
        if is_main_process():
            self.metrics.append("val", runner.iter, metrics or {})
            self.write("running", runner.iter)
            draw_curves(self.metrics.records(), self.work_dir / "curves.png")

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Puts the seconds so far where a resumed run finds them."""
        checkpoint["message_hub"]["runtime_info"]["seconds"] = self.seconds
        checkpoint["message_hub"]["resumed_keys"]["seconds"] = True

    def after_train(self, runner: Any) -> None:
        """Draws the curves a last time."""
        self.record["iterations"] = runner.iter
        if is_main_process():
            draw_curves(self.metrics.records(), self.work_dir / "curves.png")

    @property
    def seconds(self) -> float:
        """Seconds of training and validation, those before a stop included."""
        return self.seconds_before + time.perf_counter() - self.began

    def _take_metrics(self, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            network, _, name = key.partition("/")
            self.record["metrics"].setdefault(network, {})[name] = value

    def write(self, status: str, iteration: int | None = None, **more: Any) -> None:
        """Writes result.json."""
        record = self.record
        record.update(status=status, seconds=round(self.seconds, 3), **more)
        if iteration is not None:
            record["iterations"] = iteration
        images = record["iterations"] * record["world_size"]
        record["images_seen"] = {k: images * (count or 0) for k, count in record["batch"].items()}
        if is_main_process():
            result.write_json(self.work_dir / result.RESULT, record)


def train(
    config_path: str | Path,
    work_dir: str | Path | None = None,
    resume: bool | str | Path = False,
    amp: bool = False,
    seed: int | None = None,
    launcher: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The run's result, as in result.json; its status is "done" or "stopped" (by a signal).

    resume: True goes on from the work dir's last checkpoint, or begins where there is none; a path
    goes on from that file · options: what `--cfg-options` gives.

    Raises UserError for bad input, DivergedError for values that stay not finite.
    """
    register_all_modules()
    with warnings_to_log():
        config = load_config(config_path, options)
        if seed is not None:
            config.randomness.seed = seed
        if amp:
            gpu = torch.cuda.is_available()
            use_mixed_precision(config, gpu, gpu and torch.cuda.is_bf16_supported())
        place = Path(work_dir or config.get("work_dir") or default_work_dir(config_path))
        config.pop("work_dir", None)
        config.launcher = choose_launcher(launcher or config.get("launcher"))
        start_processes(config.launcher)
        return _train_in(place, config, config_path, resume)


def _train_in(
    work_dir: Path, config: Config, config_path: str | Path, resume: bool | str | Path
) -> dict[str, Any]:
    """The result of a run in a work dir that is free or may be resumed."""
    source = on_main(lambda: _prepare(work_dir, config, resume))
    if source == "finished":
        if is_main_process():
            print(
                f"nothing to do: {work_dir} has finished its {config.train_cfg.max_iters} iterations"
            )
        return result.read_result(work_dir) or {}
    held = result.lock(work_dir) if is_main_process() else None
    try:
        if source is None and is_main_process():
            result.clear(work_dir)
        record = result.describe(config, config_path, result.device_name())
        recorder = Recorder(record, work_dir)
        if source is None:
            recorder.write("running")
        return _run(recorder, config, source)
    finally:
        if held is not None:
            held.close()


def on_main(work: Callable[[], Any]) -> Any:
    """What `work` returns on the first process, on all of them; its UserError on all of them, too."""
    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = work()
        except UserError as error:
            outcome[1] = error.one_line
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise UserError(outcome[1])
    return outcome[0]


def _prepare(work_dir: Path, config: Config, resume: bool | str | Path) -> str | None:
    """The checkpoint to resume, "finished" if there is nothing left to do, None to begin."""
    result.check_free(work_dir, bool(resume))
    given = None if isinstance(resume, bool) else Path(resume)
    source = given or work_dir / checkpoints.FOLDER / checkpoints.LAST
    if not resume or (given is None and not source.exists()):
        # A job that is put back into the queue says --resume from the start.
        if resume:
            result.check_free(work_dir, False)
        return None
    if given is not None and not given.resolve().is_relative_to(work_dir.resolve()):
        result.check_free(work_dir, False)
    content = checkpoints.load(source)
    if "optimizer" not in content:
        raise UserError(
            f"checkpoint {source} has no optimizer state: resume from {checkpoints.LAST}"
        )
    status = (result.read_result(work_dir) or {}).get("status")
    finished = content.get("meta", {}).get("iter", 0) >= config.train_cfg.max_iters
    if finished and given is None and status == "done":
        return "finished"
    return str(source)


def _run(recorder: Recorder, config: Config, source: str | None) -> dict[str, Any]:
    """Builds and trains, and leaves result.json with how it ended."""
    reporter, stop = Reporter(), StopSignal()
    try:
        with _listening(stop):
            runner = _build(recorder, config, source)
            if is_main_process():
                runner.register_hook(reporter)
                _announce(reporter, runner, recorder, source)
            runner.register_hook(stop)
            runner.register_hook(recorder)
            try:
                with prints_to(runner.logger.info):
                    runner.train()
            finally:
                runner.close_log()
    except BaseException as error:
        reporter.close()
        if (
            source is None or recorder.record["split"]
        ):  # else it is still the result of the run before
            text = (
                error.one_line
                if isinstance(error, UserError)
                else f"{type(error).__name__}: {error}"
            )
            recorder.write("failed", error=text)
        raise
    reporter.close()
    recorder.write("stopped" if stop.stopped else "done")
    if is_main_process():
        final_report(reporter.console, recorder.record, recorder.work_dir)
    return recorder.record


@contextmanager
def _listening(stop: StopSignal) -> Iterator[None]:
    stop.listen()
    try:
        yield
    finally:
        stop.ignore()


def _build(recorder: Recorder, config: Config, source: str | None) -> SemiRunner:
    """The runner, told what to load."""
    config = Config(config.to_dict(), filename=None)
    config.work_dir = str(recorder.work_dir)
    if config.get("load_from"):
        checkpoints.load(config.load_from)  # fails here with one line if it can't be read
    runner = build_runner(config)
    if source is not None:
        runner.resume_from(source)
    return runner


def _announce(
    reporter: Reporter, runner: SemiRunner, recorder: Recorder, source: str | None
) -> None:
    """Says in two lines what starts."""
    data = result.describe_data(runner.train_dataloader)
    split, batch, record = data["split"], data["batch"], recorder.record
    reporter.say(
        f"{record['method']}: {split['num_labeled']} labeled and {split['num_unlabeled']} unlabeled "
        f"images, {batch['labeled']} + {batch['unlabeled']} a step x {record['world_size']}, "
        f"{runner._train_loop.max_iters} iterations on {record['device']}, seed {record['seed']}"
    )
    begin = f"resuming {source}" if source else "writing"
    reporter.say(f"{begin}, log in {recorder.work_dir / 'train.log'}")

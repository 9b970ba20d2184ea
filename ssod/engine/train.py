"""Training a config: what tools/train.py calls, and a test calls in its own process."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process

from ssod.engine.config import (
    check_numbers,
    load_config,
    use_fused_optimizer,
    use_mixed_precision,
)
from ssod.engine.faults.bad_images import BadImages
from ssod.engine.faults.data_in_use import check_agreement, describe_data
from ssod.engine.faults.data_policy import DataPolicy
from ssod.engine.faults.failures import known_failures
from ssod.engine.faults.rank_watch import RankWatch, watched
from ssod.engine.loading import pin_batches
from ssod.engine.processes import (
    choose_launcher,
    on_all,
    on_main,
    start_processes,
    timeout_of,
    was_restarted,
)
from ssod.engine.recipe.scaling import at_size
from ssod.engine.records import result
from ssod.engine.records.console import Reporter, final_report
from ssod.engine.records.recorder import Recorder
from ssod.engine.runner import (
    SemiRunner,
    build_runner,
    warnings_to_log,
)
from ssod.engine.saving import checkpoints
from ssod.engine.saving.resume import size_of
from ssod.engine.saving.start import starting_point, work_dir_of
from ssod.engine.stop import StopSignal
from ssod.registry import register_all_modules


def train(
    config_path: str | Path,
    work_dir: str | Path | None = None,
    resume: bool | str | Path = False,
    amp: bool = False,
    seed: int | None = None,
    launcher: str | None = None,
    options: Mapping[str, Any] | None = None,
    scale_to: str | None = None,
    stop: StopSignal | None = None,
) -> dict[str, Any]:
    """The run's result, as in result.json; its status is "done" or "stopped" (by a signal).

    resume: True goes on from the work dir's last checkpoint, or begins where there is none; a path goes on
    from that file; with its seed · options: what `--cfg-options` gives · scale_to: `--scale-to`, such as
    "2x1+4" · stop: where a caller that listens for signals already has noted them.

    Raises UserError for bad input, DivergedError for values that stay not finite, RunError for what the
    machine denies: memory, disk, a loader worker, another process.
    """
    register_all_modules()
    with warnings_to_log():
        config = load_config(config_path, options)
        if seed is not None:
            config.randomness.seed = seed
            check_numbers(config)
        if amp:
            gpu = torch.cuda.is_available()
            use_mixed_precision(config, gpu, gpu and torch.cuda.is_bf16_supported())
        use_fused_optimizer(config, torch.cuda.is_available())
        if torch.cuda.is_available():
            pin_batches(config)
        place = Path(work_dir or config.get("work_dir") or work_dir_of(config_path, resume))
        config.pop("work_dir", None)
        config.launcher = choose_launcher(launcher or config.get("launcher"))
        start_processes(config.launcher, timeout_of(config))
        config, said = at_size(config, scale_to, options or {}, get_world_size())
        if said and is_main_process():
            print(said)
        stop = stop or StopSignal()
        stop.timeout = timeout_of(config)
        with watched(timeout_of(config)) as watch, stop.listening():
            asked = (options or {}).get("randomness.seed") if seed is None else seed
            train_in = partial(_train_in, watch=watch, stop=stop, seed=asked)
            if was_restarted():
                resume = _after_restart(place, resume)
            if "stages" in config:
                # Late: it brings mmdet's datasets, whose greetings register_all_modules keeps quiet.
                from ssod.engine.offline.stages import train_stages

                return train_stages(place, config, config_path, resume, train_in, stop)
            return train_in(place, config, config_path, resume)


def _after_restart(work_dir: Path, resume: bool | str | Path) -> bool | str | Path:
    """What to resume when torchrun has started the processes again: the work dir's last checkpoint.

    Where there is none yet, what was asked for at first.
    """
    if is_main_process():
        print(f"torchrun restarted the run: it goes on from the last checkpoint in {work_dir}")
    begun = (work_dir / checkpoints.FOLDER / checkpoints.LAST).exists()
    return True if begun or isinstance(resume, bool) else resume


def _train_in(
    work_dir: Path,
    config: Config,
    config_path: str | Path,
    resume: bool | str | Path,
    watch: RankWatch,
    stop: StopSignal,
    seed: int | None,
) -> dict[str, Any]:
    """The result of a run in a work dir that is free or may be resumed. seed: that was asked for, if any."""
    source, config.randomness.seed = on_main(lambda: starting_point(work_dir, config, resume, seed))
    if source == "finished":
        if is_main_process():
            print(f"nothing to do: the {config.train_cfg.max_iters} iterations of {work_dir} are done")
        return result.read_result(work_dir) or {}
    held = on_all(lambda: result.lock(work_dir) if is_main_process() else None)
    try:
        if source is None and is_main_process():
            result.clear(work_dir)
        record = result.describe(config, config_path, result.device_name())
        recorder = Recorder(record, work_dir)
        if source is None:
            recorder.write("running")
        with known_failures(work_dir):
            return _run(recorder, config, source, watch, stop)
    finally:
        if held is not None:
            held.close()


def _run(
    recorder: Recorder, config: Config, source: str | None, watch: RankWatch, stop: StopSignal
) -> dict[str, Any]:
    """Builds and trains, and leaves result.json with how it ended."""
    # Late: it brings mmdet's datasets, as above.
    from ssod.engine.faults.leak_check import check_leaks

    reporter = Reporter()
    try:
        runner = _build(recorder, config, source)
        recorder.record.update(on_all(lambda: describe_data(runner.train_dataloader)))
        check_agreement(runner.train_dataloader)
        policy = DataPolicy.of(config)
        leaks = on_main(lambda: check_leaks(runner, policy))
        recorder.record["leaks"] = {name: leaks[name] for name in ("count", "pairs")}
        if is_main_process():
            runner.register_hook(reporter)
            _announce(reporter, runner, recorder, source)
            if leaks["count"]:
                reporter.say(leaks["text"])
                runner.logger.warning(leaks["text"])
        bad_images = BadImages(policy, recorder.record)
        for hook in (bad_images, stop, recorder, watch):
            runner.register_hook(hook)
        watch.on_hang = recorder.fail
        try:
            with known_failures(recorder.work_dir, runner), watch.explaining():
                runner.train()
                bad_images.refuse_too_many()
        finally:
            runner.call_hook("finish_writing")
            runner.close_log()
    except BaseException as error:
        reporter.close()
        recorder.fail(error)
        raise
    reporter.close()
    recorder.write("stopped" if stop.stopped else "done")
    if is_main_process():
        final_report(reporter.console, recorder.record, recorder.work_dir)
    return recorder.record


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


def _announce(reporter: Reporter, runner: SemiRunner, recorder: Recorder, source: str | None) -> None:
    """Says in two lines what starts."""
    record = recorder.record
    split, batch, size = record["split"], record["batch"], size_of(runner)
    reporter.say(
        f"{record['method']}: {split['num_labeled']} labeled and {split['num_unlabeled']} "
        f"unlabeled images, {batch['labeled']} + {batch['unlabeled']} a step "
        f"x {record['world_size']}, "
        f"{runner._train_loop.max_iters} iterations on {record['device']}, seed {record['seed']}; "
        f"{size.images(size.accumulative_counts)} images an optimizer step, "
        f"{size.images(runner._train_loop.max_iters)} in all"
    )
    begin = f"resuming {source}" if source else "writing"
    reporter.say(f"{begin}, log in {recorder.work_dir / 'train.log'}")

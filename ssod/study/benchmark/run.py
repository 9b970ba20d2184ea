"""The whole benchmark of a config: what tools/benchmark.py calls, and a test calls in its own process."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ssod import kernels
from ssod.engine.records import result
from ssod.errors import UserError
from ssod.study.benchmark import loading, memory, ours, peers, phases, rounds
from ssod.study.benchmark.as_gpu import as_on_a_gpu
from ssod.study.benchmark.contestants import Contestant
from ssod.study.benchmark.counting import OperatorCounter
from ssod.study.benchmark.preparation import Prepared, clock_of, device_name, prepared, waiting_for
from ssod.study.benchmark.settings import Settings


def benchmark(settings: Settings, say: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """The measurements as benchmark.json has them; raises UserError for what can't be measured.

    say: is told what is going on.
    """
    say("building models and batches")
    with prepared(settings) as made:
        contestants, wait = entries(made), waiting_for(settings.on)
        report = described(made)
        seconds = rounds.interleave(contestants, settings.rounds, wait, clock_of(settings), say)
        ratios = rounds.ratios(seconds)
        report["seconds"] = {name: rounds.summary(values) for name, values in seconds.items()}
        report["ratios"] = {name: each["median"] for name, each in ratios.items()}
        report["ratio_spreads"] = {name: [each["low"], each["high"]] for name, each in ratios.items()}
        report["images_per_second"] = {
            each.name: each.num_images / report["seconds"][each.name]["median"] for each in contestants
        }
        main = next((each for each in contestants if each.name == "method"), contestants[0])
        report["phases_of"] = main.name
        if settings.steps_only:
            return report | without_parts()
        say("phases, operators, memory, loader")
        report["phases"] = phases.measure(main, min(settings.rounds, 3), wait, clock_of(settings))
        report |= counted(contestants, made)
        report["memory"] = {
            "measure": memory.how(settings.on),
            "bytes": {each.name: memory.of(each, settings.on) for each in contestants},
        }
        if settings.trace:
            trace(main, settings.trace)
        report["loader"] = loader(made, report["seconds"][main.name]["median"])
    return report


def entries(made: Prepared) -> list[Contestant]:
    """All contestants, or those that `settings.steps` names, ours first; UserError for an unknown one."""
    found, wanted = all_entries(made), made.settings.steps
    unknown = sorted(set(wanted) - {each.name for each in found})
    if unknown:
        known = ", ".join(each.name for each in found)
        raise UserError(f"--steps {unknown[0]}: there is no such step here; name some of {known}")
    taken = [each for each in found if not wanted or each.name in wanted]
    if not made.settings.steps_only and all(each.name.startswith("mmdet") for each in taken):
        raise UserError(
            "--steps: phases are those of a step of ours: name one, such as method, or add --steps-only"
        )
    return taken


def without_parts() -> dict[str, Any]:
    """What stands in a report in the place of that which was not measured."""
    nothing = ("phases", "operators", "operators_by_source", "operators_by_file", "waits", "boxes")
    memory_of: dict[str, Any] = {"measure": "not measured", "bytes": {}}
    return {**{name: {} for name in nothing}, "memory": memory_of, "loader": None}


def all_entries(made: Prepared) -> list[Contestant]:
    """Every contestant there is, ours first."""
    found = ours.contestants(made.config, made.model, made.batches)
    found += ours.variants(made.config, made.settings, found)
    if made.settings.against is None:
        return found
    theirs = peers.contestants(
        made.config, made.settings, made.model, made.batches, mmdet_precision(made.settings)
    )
    method = made.model.method
    if method is not None and not any(each.name.startswith("mmdet_method") for each in theirs):
        made.notes.append("mmdet's SoftTeacher needs two stages and a weak view: it is left out")
    elif method is not None and type(method).__name__ != "SoftTeacher":
        made.notes.append(f"mmdet_method is mmdet's SoftTeacher: mmdet has no {type(method).__name__}")
    return [*found, *theirs]


def mmdet_precision(settings: Settings) -> str:
    """The precision of mmdet's steps."""
    return ours.precision(settings.amp_mmdet, settings.on)


def described(made: Prepared) -> dict[str, Any]:
    """What was measured, where, and on what."""
    settings, semi = made.settings, made.batches.semi
    views = {**made.batches.supervised, **(semi or {})}
    shapes = {tuple(image.shape[:0:-1]) for view in views.values() for image in view["inputs"]}
    method = made.model.method
    return {
        "schema": 1,
        "config": settings.config,
        "method": None if method is None else type(method).__name__,
        "git": result.git_hash(),
        "versions": result.versions(),
        "device": device_name(settings.on),
        "threads": torch.get_num_threads(),
        "precision": {"ssod": str(made.config.optim_wrapper.precision), "mmdet": mmdet_precision(settings)},
        "kernels": {"mmcv": kernels.active(), "mmdet": peers.kernels_of_mmdet(settings)},
        "batch": dict(
            zip(("labeled", "unlabeled"), made.batches.counts or (made.batches.num_images, 0), strict=True)
        ),
        "sizes": sorted(shapes),
        "rounds": settings.rounds,
        "clock": settings.clock,
        "weights": settings.checkpoint or f"random, {settings.warm_steps} supervised steps, heads set",
        "notes": made.notes,
    }


def counted(contestants: Sequence[Contestant], made: Prepared) -> dict[str, Any]:
    """Operators and waits of one step of each contestant, and the pseudo boxes an image that it found.

    On a CPU they take the ways of a GPU here: see `as_gpu.py`.
    """
    names = ("operators", "operators_by_source", "operators_by_file", "waits")
    report: dict[str, Any] = {"boxes": {}, **{name: {} for name in names}}
    for each in contestants:
        if each.name.endswith(peers.OWN_KERNELS):  # the same operators
            continue
        teacher = each.name.startswith("mmdet_method")
        each.prepare(0)
        with ExitStack() as stack:
            noted = stack.enter_context(peers.counted_boxes(each.model)) if teacher else []
            if made.settings.on == "cpu":
                stack.enter_context(as_on_a_gpu(each.optimizer))
            counter = stack.enter_context(OperatorCounter())
            log = each.step()
        found = counter.report()
        for key, value in found.items():
            report[key][each.name] = value
        boxes = {key.removeprefix("num_boxes_"): float(v) for key, v in log.items() if "num_boxes" in key}
        if boxes or noted:
            report["boxes"][each.name] = boxes or {"candidates": noted[0]}
        if made.settings.on == "cuda":
            report["waits"][each.name]["synchronizations"] = synchronizations(each)
    return report


def synchronizations(contestant: Contestant) -> dict[str, int]:
    """How often torch saw the host wait for the GPU in a step, by the file of the line that did it."""
    contestant.prepare(0)
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            contestant.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [each.filename for each in said if "synchronizing CUDA operation" in str(each.message)]
    return dict(Counter(waits).most_common())


def trace(contestant: Contestant, path: str) -> None:
    """Writes a Chrome trace of one step, in which the phases stand by their names."""
    contestant.prepare(0)
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    clock = phases.PhaseClock()
    with (
        phases.phases_of(contestant.model, contestant.optimizer, clock),
        profile(activities=activities) as profiler,
        clock.phase(phases.OTHER),
    ):
        contestant.step()
    profiler.export_chrome_trace(path)


def loader(made: Prepared, step: float) -> dict[str, Any] | None:
    """What the loader does in a second, and how long a step of so many seconds waits for it; None for no."""
    counts = made.batches.counts or (made.batches.num_images,)
    if made.settings.loader_batches == 0:
        return None
    found = loading.measure(made.config, counts, made.settings.loader_batches)
    return found | {"wait_per_step": max(found["seconds_per_batch"] - step, 0.0)}

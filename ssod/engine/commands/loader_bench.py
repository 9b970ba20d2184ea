"""What a loader worker achieves: images/s of the two-view pipeline beside mmdet's, and padding in batches."""

from __future__ import annotations

import math
import runpy
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import mmdet
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from ssod.data.decode import image_size, read_image
from ssod.data.draws import seeded
from ssod.data.padding import padding_shares
from ssod.data.pipelines import strong, two_views, weak

Pipeline = Callable[[dict[str, Any]], Any]
QUALITY = 95  # of the JPEGs that are made: about the bytes per pixel of COCO's
CLOCKS: dict[str, Callable[[], float]] = {"processor": time.process_time, "wall": time.perf_counter}


def pipelines(scale: Any, reduced: bool = False) -> dict[str, Pipeline]:
    """Ours and mmdet's own, from the recipe that it ships; the same operations, draws and scale.

    reduced: ours with reduced decoding, too, whose draws come in another order.
    """
    recipe = Path(mmdet.__file__).parent / ".mim/configs/_base_/datasets/semi_coco_detection.py"
    theirs = runpy.run_path(str(recipe))["unsup_pipeline"]
    for branch in ("unsup_teacher", "unsup_student"):
        theirs[-1][branch][0]["scale"] = list(scale)
    runs: dict[str, Pipeline] = {"ssod": Compose(two_views(weak(scale), strong(scale)))}
    if reduced:
        runs["ssod, reduced decoding"] = Compose(two_views(weak(scale), strong(scale), reduced_decoding=True))
    with DefaultScope.overwrite_default_scope("mmdet"):  # or it would get our faster operations
        return {**runs, "mmdet": Compose(theirs)}


def bench(
    paths: Sequence[str],
    scale: Any,
    rounds: int,
    jpeg_size: tuple[int, int] | None = None,
    reduced: bool = False,
    wanted: float | None = None,
    counts: tuple[int, int] | None = None,
) -> None:
    """Prints what tools/bench_loader.py is asked for; its options say what the arguments mean."""
    torch.set_num_threads(1)  # as in a loader's worker
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if jpeg_size is not None:
            paths = make_jpegs(paths, jpeg_size, Path(folder))
        kilobytes = sum(Path(path).stat().st_size for path in paths) / len(paths) / 1e3
        print(f"{len(paths)} images of {kilobytes:.0f} kB on average, scale {scale[0]} to {scale[1]}")
        seconds = measure(paths, pipelines(scale, reduced), rounds)
        _report(seconds, len(paths), rounds, wanted)
        if counts is not None:
            _report_padding([image_size(path) for path in paths], counts, scale)


def make_jpegs(paths: Sequence[str], size: tuple[int, int], folder: Path) -> list[str]:
    """JPEGs of a width and height, as many as `paths`: photographs side by side, cut, none of them enlarged.

    A larger photograph is made smaller, so that all of it is seen.
    """
    width, height = size
    made = []
    for number in range(len(paths)):
        page = np.zeros((height, width, 3), dtype=np.uint8)
        top, turn = 0, number
        while top < height:
            left, row = 0, 0
            while left < width:
                image = _at_most(read_image(paths[turn % len(paths)]), width, height)
                part = image[: height - top, : width - left]
                page[top : top + part.shape[0], left : left + part.shape[1]] = part
                left, row, turn = left + image.shape[1], max(row, image.shape[0]), turn + 1
            top += row
        made.append(str(folder / f"{number:06d}.jpg"))
        cv2.imwrite(made[-1], page, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return made


def _at_most(image: Any, width: int, height: int) -> Any:
    """An image that covers no more than a width and height, made smaller where it must be."""
    share = max(width / image.shape[1], height / image.shape[0])
    if share >= 1:
        return image
    new = max(round(image.shape[1] * share), width), max(round(image.shape[0] * share), height)
    return cv2.resize(image, new, interpolation=cv2.INTER_AREA)


def measure(
    paths: Sequence[str], runs: dict[str, Pipeline], rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Seconds of each round by pipeline and clock; in each, every image goes through all of them.

    With the same draws, the order of pipelines reversed from image to image.
    """
    records = [dict(img_path=path, img_id=i, height=1, width=1, instances=[]) for i, path in enumerate(paths)]
    seconds: dict[tuple[str, str], list[float]] = {(run, clock): [] for run in runs for clock in CLOCKS}
    for turn in range(rounds + 1):  # the first one warms up
        spent = dict.fromkeys(seconds, 0.0)
        for number, record in enumerate(records):
            for run in sorted(runs, reverse=bool((turn + number) % 2)):
                began = {clock: now() for clock, now in CLOCKS.items()}
                with seeded((turn, number)):
                    runs[run](dict(record))
                for clock, now in CLOCKS.items():
                    spent[run, clock] += now() - began[clock]
        if turn:
            for key, value in spent.items():
                seconds[key].append(value)
    return seconds


def _report(
    seconds: dict[tuple[str, str], list[float]], images: int, rounds: int, wanted: float | None
) -> None:
    """Prints medians over rounds, and the ratio's over the ratios of each round."""
    runs = list(dict.fromkeys(run for run, _ in seconds))
    for clock in CLOCKS:
        rates = {run: median(images / each for each in seconds[run, clock]) for run in runs}
        for run in runs[:-1]:
            ratios = [b / a for a, b in zip(seconds[run, clock], seconds["mmdet", clock], strict=True)]
            print(
                f"{clock} time: {run} {rates[run]:.1f}, mmdet {rates['mmdet']:.1f} images/s per worker, "
                f"ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} over {rounds} rounds)"
            )
    if wanted is not None:
        for run in runs:
            rate = median(images / each for each in seconds[run, "processor"])
            print(f"{run}: {wanted:g} images/s need {math.ceil(wanted / rate)} workers with a core each")


def _report_padding(sizes: list[tuple[int, int]], counts: tuple[int, int], scale: Any) -> None:
    """Prints the share of padding at the images' own sizes."""
    [resize, *_] = weak(scale)
    cases = {
        "not grouped": dict(group_by_orientation=False),
        "grouped by orientation": {},
        "grouped, same_scale=True": dict(same_scale=True),
    }
    for name, options in cases.items():
        shares = padding_shares([sizes, sizes], counts, resize, **options)
        text = ", ".join(f"{stack} {share:.1%}" for stack, share in shares.items())
        print(f"padding in batches of {counts[0]} + {counts[1]} images, {name}: {text}")

"""Images/s of the two-view pipeline and of mmdet's: `python tools/bench_loader.py IMAGES`; see --help."""

import argparse
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from ssod.cli import exit_code


def pipelines(scale: Any) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Ours and mmdet's own, from the recipe that it ships; the same operations, draws and scale."""
    import mmdet
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope

    from ssod.data.pipelines import strong, two_views, weak

    recipe = Path(mmdet.__file__).parent / ".mim/configs/_base_/datasets/semi_coco_detection.py"
    theirs = runpy.run_path(str(recipe))["unsup_pipeline"]
    for branch in ("unsup_teacher", "unsup_student"):
        theirs[-1][branch][0]["scale"] = list(scale)
    ours = Compose(two_views(weak(scale), strong(scale)))
    with DefaultScope.overwrite_default_scope("mmdet"):  # or it would get our faster operations
        return {"ssod": ours, "mmdet": Compose(theirs)}


def measure(paths: list[str], scale: Any, rounds: int) -> None:
    """Prints medians over rounds; in each, every image goes through both in turns, with the same draws."""
    import cv2
    import torch

    from ssod.data.draws import seeded

    torch.set_num_threads(1)  # as in a loader's worker
    cv2.setNumThreads(1)
    records = [dict(img_path=path, img_id=i, height=1, width=1, instances=[]) for i, path in enumerate(paths)]
    runs = pipelines(scale)
    clocks: dict[str, Callable[[], float]] = {"processor": time.process_time, "wall": time.perf_counter}
    seconds: dict[tuple[str, str], list[float]] = {(run, clock): [] for run in runs for clock in clocks}
    for turn in range(rounds + 1):  # the first one warms up
        spent = dict.fromkeys(seconds, 0.0)
        for number, record in enumerate(records):
            for run in sorted(runs, reverse=bool((turn + number) % 2)):
                began = {clock: now() for clock, now in clocks.items()}
                with seeded((turn, number)):
                    runs[run](dict(record))
                for clock, now in clocks.items():
                    spent[run, clock] += now() - began[clock]
        if turn:
            for key, value in spent.items():
                seconds[key].append(value)
    for clock in clocks:
        rates = {run: median(len(paths) / each for each in seconds[run, clock]) for run in runs}
        ratios = [b / a for a, b in zip(seconds["ssod", clock], seconds["mmdet", clock], strict=True)]
        print(
            f"{clock} time: ssod {rates['ssod']:.1f}, mmdet {rates['mmdet']:.1f} images/s per worker, ratio "
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} over {rounds} rounds)"
        )


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Decodes images and makes a weak and a strong view of each, as one loader worker does, "
        "with this project's pipeline and with mmdet's MultiBranch, in turns in one process, on one thread."
    )
    parser.add_argument("images", help="a folder, a .txt list or a COCO .json file (with --image-root)")
    parser.add_argument("--image-root", help="where the file names of a list or a COCO file begin")
    parser.add_argument("--number", type=int, default=60, help="how many of the images (default: 60)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5, after one that doesn't count")
    parser.add_argument(
        "--scale",
        nargs=4,
        type=int,
        default=(1333, 400, 1333, 1200),
        metavar=("W", "H", "W2", "H2"),
        help="from which the size is drawn (default: COCO's, 1333 400 1333 1200)",
    )
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints."""
    from ssod.registry import register_all_modules

    register_all_modules()
    from ssod.data.unlabeled import read_images

    found = read_images(arguments.images, arguments.image_root).images
    paths = [image.path for image in found[: arguments.number]]
    w, h, w2, h2 = arguments.scale
    print(f"{len(paths)} images, scale {(w, h)} to {(w2, h2)}")
    measure(paths, [(w, h), (w2, h2)], arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

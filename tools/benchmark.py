"""What a training step costs, beside mmdet's: `python tools/benchmark.py CONFIG`; see --help."""

import argparse
import os
import sys
from typing import Any

# Before torch comes. Threads that spin take each other's cores (tools/train.py); and torch's profiler tells
# the console whenever it starts and stops.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KINETO_LOG_LEVEL", "6")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from ssod.cli import add_config_options, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Times a method's step, a supervised step of the same student on as many images and, "
        "with --against mmdet, mmdet's own of both, in turns in one process, on the same images and weights; "
        "then phases, operators, waits for a GPU, memory and the loader. Exit codes: 0 done, 2 bad input, "
        "1 anything else."
    )
    add = parser.add_argument
    add("config", help="such as configs/soft_teacher/shapes.py")
    add("--against", choices=("mmdet",), help="also time mmdet's supervised step and its SoftTeacher's")
    add("--amp", action="store_true", help="mixed precision in our steps")
    add("--amp-mmdet", action="store_true", help="mixed precision in mmdet's steps, too")
    add("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    add("--rounds", type=int, default=5, help="default: 5, after one that doesn't count")
    add("--size", metavar="WxH", help="stretch every view to this; default: as the loader makes them")
    add("--batch", metavar="L+U", help="labeled and unlabeled images; default: the config's")
    add("--drawn", action="store_true", help="drawn images in place of the config's, through its pipelines")
    add("--checkpoint", help="weights to start from; default: random ones that are trained a little")
    add("--warm-steps", type=int, default=10, metavar="N", help="how little (default: 10 steps)")
    add("--boxes", type=int, default=15, metavar="N", help="pseudo boxes an image they then find (15)")
    add("--threads", type=int, metavar="N", help="torch's threads; default: its own choice")
    add(
        "--also",
        nargs="+",
        default=(),
        choices=("teacher_bf16", "amp"),
        help="our method's step once more: with the teacher's layers in bfloat16, in mixed precision",
    )
    add(
        "--steps", nargs="+", default=(), metavar="NAME", help="time these alone, such as method mmdet_method"
    )
    add("--steps-only", action="store_true", help="leave out phases, operators, memory and loader")
    add(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="time steps by the wall's clock (default), or by the seconds this process computed, which other "
        "work beside it does not lengthen; the latter for one thread of a CPU",
    )
    add(
        "--mmdet-kernels",
        choices=("torchvision", "ssod", "both"),
        default="torchvision",
        help="RoIAlign of mmdet's steps on a CPU without a compiled mmcv (default: torchvision)",
    )
    add("--loader-batches", type=int, default=4, metavar="N", help="to time the loader by (4); 0: don't")
    add(
        "--vary",
        choices=("boxes", "classes", "size", "ratio", "jitters"),
        help="instead: our step's time and memory against pseudo boxes an image, classes, image size, "
        "unlabeled images for each labeled one, or jittered copies of a box",
    )
    add("--values", nargs="+", metavar="V", help="that it takes, such as 0 15 100 500")
    add(
        "--labels-in",
        choices=("bfloat16", "float16"),
        help="instead: how a teacher's labels differ where it labels in this type (model.teacher_dtype) "
        "from those in float32",
    )
    add("--trace", metavar="FILE", help="write a Chrome trace of one step, phases named")
    add("--json", metavar="FILE", help="write the figures")
    add(
        "--out",
        metavar="DIR",
        help="write benchmark.json, benchmark.md and phases.png; or vary_*.json and vary_*.png",
    )
    add_config_options(parser, "model.method.num_jitters=5")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints and writes."""
    from ssod.registry import register_all_modules

    register_all_modules()  # before mmdet's datasets are imported, whose greetings it keeps off the console
    from ssod.study.benchmark import growth, growth_report, precision, report
    from ssod.study.benchmark.run import benchmark

    if arguments.labels_in is not None:
        compared = precision.compare(settings(arguments), arguments.labels_in, say)
        report.show(compared["notes"], [precision.table(compared)])
        written = report.write_files(compared, arguments.json, arguments.out, "labels.json", {})
    elif arguments.vary is not None:
        grown = growth.vary(settings(arguments), arguments.vary, arguments.values, say)
        report.show(growth_report.sentences(grown), [growth_report.table(grown)])
        written = growth_report.write(grown, arguments.json, arguments.out)
    else:
        found = benchmark(settings(arguments), say)
        report.show(report.sentences(found), report.tables(found, [found["phases_of"]]))
        written = report.write(found, arguments.json, arguments.out)
    for path in written:
        print(f"wrote {path}")
    return 0


def say(text: str) -> None:
    """Tells whoever waits what is going on, apart from what is piped."""
    print(f"... {text}", file=sys.stderr, flush=True)


def settings(arguments: argparse.Namespace) -> Any:
    """The benchmark's settings; UserError for options that don't go together."""
    from ssod.errors import UserError
    from ssod.study.benchmark.settings import Settings, parse_batch, parse_size

    given = vars(arguments).copy()
    vary, values, labels_in = (given.pop(name) for name in ("vary", "values", "labels_in"))
    if labels_in is not None and (vary is not None or given["against"] is not None):
        raise UserError("--labels-in compares a teacher with itself: leave out --vary and --against")
    if vary is not None and given["against"] is not None:
        raise UserError("--vary measures our step alone: leave out --against")
    if vary is None and values is not None:
        raise UserError("--values is for --vary: say what takes these values, such as --vary boxes")
    alone = [name for name in ("steps", "also", "steps_only") if given[name]]
    if alone and (vary is not None or labels_in is not None):
        option = "--" + alone[0].replace("_", "-")
        raise UserError(f"{option} is for steps beside each other: leave it out with --vary and --labels-in")
    given["size"] = None if given["size"] is None else parse_size(given["size"])
    given["batch"] = None if given["batch"] is None else parse_batch(given["batch"])
    given["json_file"], given["options"] = given.pop("json"), given.pop("cfg_options")
    return Settings(**given)


if __name__ == "__main__":
    sys.exit(main())

"""Suggests score thresholds for pseudo labels: `python tools/advise.py CONFIG CHECKPOINT`; see --help."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for the reason see tools/train.py

from ssod.cli import add_checkpoint_options, add_config_options, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Measures precision and recall against the score bound, for each class, on the "
        "validation images, and suggests for each the lowest bound with enough precision. Writes "
        "thresholds.json and thresholds.png. Exit codes: 0 done, 2 bad input, 1 anything else."
    )
    add_checkpoint_options(parser)
    parser.add_argument("--out", metavar="DIR", help="default: the folder thresholds beside the checkpoint's")
    parser.add_argument("--min-precision", type=float, default=0.9, help="what is enough (default: 0.9)")
    add_config_options(parser, "val_dataloader.dataset.indices=500")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints the table and says where the files are."""
    from ssod.registry import register_all_modules

    register_all_modules()  # before mmdet's datasets are imported, whose greetings it keeps off the console
    from rich.console import Console

    from ssod.engine.commands.advise import advise, show

    out = Path(arguments.out or Path(arguments.checkpoint).resolve().parent.parent / "thresholds")
    advice = advise(
        arguments.config,
        arguments.checkpoint,
        out,
        which=arguments.which,
        min_precision=arguments.min_precision,
        options=arguments.cfg_options,
    )
    show(advice, Console(highlight=False, soft_wrap=True))
    print(f"wrote {out / 'thresholds.json'} and thresholds.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

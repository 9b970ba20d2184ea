"""Labels images: `python tools/pseudo_label.py CONFIG CHECKPOINT IMAGES --out FILE.json`; see --help."""

import argparse
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for the reason see tools/train.py

from ssod.cli import add_image_options, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Writes a COCO file with a network's boxes and scores, and where they come from. Images "
        "that can't be read are named and left out, as many as the config's data_policy lets be bad. Exit "
        "codes: 0 done, 2 bad input, 75 stopped by a signal (run again with --resume), 1 anything else."
    )
    add_image_options(parser, min_score=0.9, out="FILE.json")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Labels; 75 where a signal stopped it."""
    from ssod.registry import register_all_modules

    register_all_modules()  # before mmdet's datasets are imported, whose greetings it keeps off the console
    from ssod.engine.offline.label_command import label_with_checkpoint

    status = label_with_checkpoint(
        arguments.config,
        arguments.checkpoint,
        arguments.images,
        arguments.out,
        min_score=arguments.min_score,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        which=arguments.which,
        image_root=arguments.image_root,
        resume=arguments.resume,
        options=arguments.cfg_options,
    )
    return 75 if status == "stopped" else 0


if __name__ == "__main__":
    sys.exit(main())

"""Boxes on your own images: `python tools/predict.py CONFIG CHECKPOINT IMAGES --out DIR`; see --help."""

import argparse
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for the reason see tools/train.py

from ssod.cli import add_image_options, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Writes DIR/predictions.json, a COCO file with a network's boxes and scores, and "
        "DIR/pictures/ with the boxes drawn. Images that can't be read are named and left out. Exit codes: 0 "
        "done, 2 bad input, 75 stopped by a signal (run again with --resume), 1 anything else."
    )
    add_image_options(parser, min_score=0.3, out="DIR")
    parser.add_argument("--no-pictures", action="store_true", help="write the JSON file alone")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Predicts; 75 where a signal stopped it."""
    from ssod.registry import register_all_modules

    register_all_modules()  # before mmdet's datasets are imported, whose greetings it keeps off the console
    from ssod.engine.commands.predict import predict

    status = predict(
        arguments.config,
        arguments.checkpoint,
        arguments.images,
        arguments.out,
        min_score=arguments.min_score,
        pictures=not arguments.no_pictures,
        resume=arguments.resume,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        which=arguments.which,
        image_root=arguments.image_root,
        options=arguments.cfg_options,
    )
    return 75 if status == "stopped" else 0


if __name__ == "__main__":
    sys.exit(main())

"""Boxes on your own images: `python tools/predict.py CONFIG CHECKPOINT IMAGES --out DIR`; see --help."""

import argparse
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for the reason see tools/train.py

from ssod.cli import add_config_options, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Writes DIR/predictions.json, a COCO file with a network's boxes and scores, and "
        "DIR/pictures/ with the boxes drawn. Images that can't be read are named and left out. Exit codes: 0 "
        "done, 2 bad input, 75 stopped by a signal (run again with --resume), 1 anything else."
    )
    parser.add_argument("config", help="the config that the checkpoint was trained with")
    parser.add_argument("checkpoint", help="such as work_dirs/.../checkpoints/best_teacher.pth")
    parser.add_argument(
        "images", help="a folder, an image, a .txt list with one path a line, or a COCO .json file"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument(
        "--which", choices=("teacher", "student"), help="default: the teacher, if there is one"
    )
    parser.add_argument("--min-score", type=float, default=0.3, help="boxes below are dropped; default: 0.3")
    parser.add_argument("--batch-size", type=int, help="default: the config's val_dataloader's")
    parser.add_argument("--num-workers", type=int, help="default: the config's val_dataloader's")
    parser.add_argument(
        "--image-root",
        metavar="DIR",
        help="where relative names of a list or COCO file begin; default: its folder",
    )
    parser.add_argument("--resume", action="store_true", help="go on where a stopped or killed run was")
    parser.add_argument("--no-pictures", action="store_true", help="write the JSON file alone")
    add_config_options(parser, "model.detector.test_cfg.rcnn.max_per_img=50")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Predicts; 75 where a signal stopped it."""
    from ssod.registry import register_all_modules

    register_all_modules()  # before mmdet's datasets are imported, whose greetings it keeps off the console
    from ssod.engine.predict import predict

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

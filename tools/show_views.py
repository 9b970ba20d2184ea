"""Pictures of a config's views with boxes: `python tools/show_views.py CONFIG --out DIR`; see --help."""

import argparse
import sys

from ssod.cli import add_config_options, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Writes views.jpg: labeled images as they are, as labeled view, and in the weak and "
        "strong views that an unlabeled image has, with their boxes projected as pseudo boxes are. With a "
        "checkpoint also pseudo_labels.jpg: unlabeled images with the boxes of its teacher. Exit codes: 0 "
        "done, 2 bad input, 1 anything else."
    )
    parser.add_argument("config", help="such as configs/soft_teacher/shapes.py")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument("--checkpoint", help="such as work_dirs/.../checkpoints/best_teacher.pth")
    parser.add_argument("--images", type=int, default=4, metavar="N", help="how many (default: 4)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="the first image (default: 0)")
    parser.add_argument("--draw", type=int, default=0, metavar="N", help="another random draw (default: 0)")
    add_config_options(parser, "train_dataloader.dataset.datasets.0.ann_file=mine.json")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Writes the pictures and says where they are."""
    from ssod.registry import register_all_modules

    register_all_modules()  # before mmdet's datasets are imported, whose greetings it keeps off the console
    from ssod.engine.commands.show_views import show_views

    written = show_views(
        arguments.config,
        arguments.out,
        checkpoint=arguments.checkpoint,
        num_images=arguments.images,
        first=arguments.first,
        draw=arguments.draw,
        options=arguments.cfg_options,
    )
    for path in written:
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Images/s of the two-view pipeline and of mmdet's: `python tools/bench_loader.py IMAGES`; see --help."""

import argparse
import sys

from ssod.cli import exit_code
from ssod.errors import UserError


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
    parser.add_argument(
        "--jpeg-size",
        type=size,
        metavar="WxH",
        help="first make JPEGs of this size of the images, in a temporary folder: side by side where they "
        "are smaller, never enlarged, so that there is as much to decode as in a photograph",
    )
    parser.add_argument(
        "--reduced-decoding", action="store_true", help="measure ours with reduced_decoding=True, too"
    )
    parser.add_argument(
        "--images-per-second",
        type=float,
        metavar="N",
        help="how many unlabeled images a second the training takes (its steps a second times their number): "
        "prints how many workers keep up with it",
    )
    parser.add_argument(
        "--padding",
        nargs=2,
        type=int,
        metavar=("LABELED", "UNLABELED"),
        help="also print the share of padding in batches of so many images, with and without grouping",
    )
    return parser.parse_args(words)


def size(text: str) -> tuple[int, int]:
    """Width and height from `640x480`."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 640x480")
    return int(width), int(height)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints."""
    from ssod.registry import register_all_modules

    register_all_modules()
    from ssod.data.unlabeled import read_images
    from ssod.engine.commands import loader_bench

    wanted = arguments.images_per_second
    if min(arguments.number, arguments.rounds, *arguments.scale) < 1 or (wanted is not None and wanted <= 0):
        raise UserError("--number, --rounds and --scale are at least 1, --images-per-second is more than 0")
    found = read_images(arguments.images, arguments.image_root).images
    paths = [image.path for image in found[: arguments.number]]
    if not paths:
        raise UserError(f"{arguments.images} holds no image to measure with")
    w, h, w2, h2 = arguments.scale
    loader_bench.bench(
        paths,
        [(w, h), (w2, h2)],
        arguments.rounds,
        jpeg_size=arguments.jpeg_size,
        reduced=arguments.reduced_decoding,
        wanted=wanted,
        counts=arguments.padding,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

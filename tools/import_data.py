"""Turns a VOC or YOLO folder into a COCO file: `python tools/import_data.py voc FOLDER --out FILE.json`."""

import argparse
import sys
from pathlib import Path

from ssod.cli import exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Writes a COCO file whose file names begin at FOLDER. What COCO can't represent is "
        "refused. Exit codes: 0 done, 2 bad input, 1 anything else."
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="voc|yolo")
    voc = kinds.add_parser("voc", help="Annotations/*.xml and JPEGImages/")
    yolo = kinds.add_parser("yolo", help="images/, labels/*.txt and data.yaml or classes.txt")
    for each in (voc, yolo):
        each.add_argument("folder", help="the folder to import")
        each.add_argument("--out", required=True, metavar="FILE.json", help="the file to write")
    voc.add_argument("--subset", help="only the images in ImageSets/Main/SUBSET.txt")
    voc.add_argument(
        "--classes", nargs="+", metavar="NAME", help="in this order; default: those found, sorted"
    )
    voc.add_argument(
        "--zero-based",
        action="store_true",
        help="corners count from 0, and xmax and ymax lie behind the box; VOC's count from 1 and lie inside",
    )
    yolo.add_argument("--subset", help="images/SUBSET and labels/SUBSET, or SUBSET/images and SUBSET/labels")
    yolo.add_argument("--names", metavar="FILE", help="the class names; default: the one such file in FOLDER")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Imports, and says how much."""
    from ssod.data.import_common import write_imported
    from ssod.data.import_voc import read_voc
    from ssod.data.import_yolo import read_yolo

    if arguments.kind == "voc":
        data = read_voc(arguments.folder, arguments.subset, arguments.classes, arguments.zero_based)
    else:
        data = read_yolo(arguments.folder, arguments.subset, arguments.names)
    write_imported(data, Path(arguments.out))
    boxes = sum(len(image.boxes) for image in data.images)
    print(f"{arguments.out}: {len(data.images)} images, {boxes} boxes, classes {', '.join(data.classes)}")
    for note in data.notes:
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Splits a COCO file: `python tools/split_data.py FILE --protocol stac --percent 10 --out DIR`; --help."""

import argparse
import sys

from ssod.cli import exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Writes NAME.FOLD@PERCENT.json, NAME.FOLD@PERCENT-unlabeled.json (no annotations) and "
        "manifest.json. Exit codes: 0 done, 2 bad input, 1 anything else."
    )
    parser.add_argument("annotations", help="a COCO file, such as instances_train2017.json")
    parser.add_argument(
        "--protocol",
        required=True,
        choices=("stac", "soft_teacher", "unbiased_teacher", "paddle", "own"),
        help="a published draw of train2017, or own: for any data",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument(
        "--percent", nargs="+", default=[], help="labeled images, 0.01 to 100, such as 1 2 5 10"
    )
    parser.add_argument("--fold", nargs="+", type=int, default=[1], help="default: 1")
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="COCO_supervision.txt, for unbiased_teacher and paddle; .json.gz will do",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="for own; for soft_teacher it is added to the fold; default: 0"
    )
    own = parser.add_argument_group("for --protocol own")
    own.add_argument("--count", nargs="+", type=int, default=[], help="labeled images, instead of --percent")
    own.add_argument(
        "--per-class", nargs="+", type=int, default=[], help="labeled images that show each class, at least"
    )
    own.add_argument(
        "--stratified", action="store_true", help="give each part the file's share of each class"
    )
    own.add_argument(
        "--held-out", default="0", metavar="PERCENT", help="of all images, set aside first; default: 0"
    )
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Splits, and says what is where."""
    from ssod.data.splits import SplitOptions, split_file

    options = SplitOptions(
        arguments.protocol,
        percents=arguments.percent,
        counts=arguments.count,
        per_class=arguments.per_class,
        folds=arguments.fold,
        seed=arguments.seed,
        held_out=arguments.held_out,
        stratified=arguments.stratified,
        list_path=arguments.list,
    )
    for name, split in split_file(arguments.annotations, arguments.out, options).items():
        parts = [f"{split[part]['num_images']} {part}" for part in ("labeled", "unlabeled")]
        parts += [f"{split['held_out']['num_images']} held out"] if split["held_out"] else []
        parts += [f"{split['num_left_out']} left out"] if split["num_left_out"] else []
        parts += [split["note"]] if split["note"] else []
        print(f"{name}: {', '.join(parts)}; ids {split['labeled']['ids_sha256'][:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

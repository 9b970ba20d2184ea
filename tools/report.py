"""Tables and plots of runs: `python tools/report.py WORK_DIRS... --out DIR`; see docs/report.md."""

import argparse
import sys

from ssod.cli import exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Tables and plots of finished runs: mean, spread and the gain over the supervised twin. "
        "Exit codes: 0 done, 2 bad input, 1 anything else."
    )
    parser.add_argument(
        "folders", nargs="+", metavar="WORK_DIRS", help="runs, or folders with runs anywhere below"
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="where report.html and the other files go; an earlier report there is replaced",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=("md", "tex", "csv", "html"),
        default=["md", "tex", "csv", "html"],
        help="default: all",
    )
    parser.add_argument("--sizes", action="store_true", help="AP of small, medium and large boxes, too")
    parser.add_argument("--title", help="default: the folders' names")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Reads the runs, writes the files and prints their paths."""
    from ssod.study.report.tables import make_report
    from ssod.study.report.write import write_report

    report = make_report(arguments.folders, arguments.title, arguments.sizes)
    written = write_report(report, arguments.out, arguments.formats)
    apart = f", {len(report.apart)} not done and listed apart" if report.apart else ""
    print(f"{_count(len(report.runs), 'run')} in {_count(len(report.tables), 'table')}{apart}")
    print("files: " + ", ".join(map(str, written)))
    return 0


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())

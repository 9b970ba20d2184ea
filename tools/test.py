"""COCO AP of a checkpoint: `python tools/test.py CONFIG CHECKPOINT --which teacher`; see --help."""

import argparse
import sys

from ssod.cli import add_checkpoint_options, add_config_options, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="COCO AP of a checkpoint. Exit codes: 0 done, 2 bad input, 1 anything else."
    )
    add_checkpoint_options(parser, both=True)
    parser.add_argument(
        "--split",
        choices=("val", "test"),
        default="val",
        help="the config's val_dataloader (default) or test_dataloader",
    )
    parser.add_argument("--out", metavar="FILE.json", help="where to write the numbers, too")
    add_config_options(parser, "model.detector.test_cfg.rcnn.score_thr=0.001")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Evaluates and prints the table."""
    from rich.console import Console

    from ssod.engine.records.console import metrics_table
    from ssod.engine.testing import check_out_file, evaluate_checkpoint, write_report

    if arguments.out is not None:
        check_out_file(arguments.out)
    report = evaluate_checkpoint(
        arguments.config,
        arguments.checkpoint,
        which=arguments.which,
        split=arguments.split,
        options=arguments.cfg_options,
    )
    title = f"{report['num_images']} {report['split']} images, score_thr {report['test']['score_thr']}"
    Console(highlight=False).print(metrics_table(report["metrics"], title))
    if arguments.out is not None:  # after the table: a full disk takes nothing but the file
        write_report(arguments.out, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Says what is wrong with a config, its data or the machine: `python tools/doctor.py CONFIG`; see --help."""

import argparse
import json
import sys

from ssod.cli import add_config_options, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Looks for all that would make a training fail, report wrong numbers or learn less than "
        "it could, and says how to mend it (docs/doctor.md lists the findings). Exit codes: 0 nothing that "
        "fails or lies, 2 something, or bad input, 1 anything else."
    )
    parser.add_argument("config", help="a config file, as in configs/")
    parser.add_argument("--json", action="store_true", help="prints a JSON list of findings, nothing else")
    parser.add_argument(
        "--near-duplicates",
        action="store_true",
        help="also looks for images of training that look like images of validation or test (decodes all)",
    )
    parser.add_argument(
        "--decode-all", action="store_true", help="decodes every image, not only a sample of each part"
    )
    parser.add_argument("--no-dry-run", action="store_true", help="leaves out the two steps of training")
    parser.add_argument("--work-dir", help="where training would write; default: as in tools/train.py")
    parser.add_argument(
        "--world-size",
        type=int,
        metavar="N",
        help="processes that will train; default: WORLD_SIZE, or the number of GPUs",
    )
    add_config_options(parser, "train_cfg.max_iters=100")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Examines and prints; 2 where training would fail or lie."""
    from rich.console import Console

    from ssod.registry import register_all_modules

    register_all_modules()  # before the rest: it keeps what mmdet prints at import off the console
    from ssod.data.checkup.findings import has_severe
    from ssod.engine.checkup.report import show
    from ssod.engine.commands.doctor import examine
    from ssod.engine.records.result import plain

    findings = examine(
        arguments.config,
        options=arguments.cfg_options,
        work_dir=arguments.work_dir,
        world_size=arguments.world_size,
        near_duplicates=arguments.near_duplicates,
        decode_all=arguments.decode_all,
        try_training=not arguments.no_dry_run,
    )
    if arguments.json:
        print(json.dumps(plain([one.as_dict() for one in findings]), indent=1, allow_nan=False))
    else:
        show(findings, Console(highlight=False, soft_wrap=True))
    return 2 if has_severe(findings) else 0


if __name__ == "__main__":
    sys.exit(main())

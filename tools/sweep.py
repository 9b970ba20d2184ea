"""Runs a sweep: `python tools/sweep.py configs/sweeps/ladder_shapes.py`; see --help and docs/sweeps.md."""

import argparse
import os
import sys

# Before torch comes, as in tools/train.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from ssod.cli import add_config_options, add_key_values, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Runs what a sweep file asks for and isn't done yet. Exit codes: 0 all done, 1 some "
        "failed, 2 bad input, 75 stopped by a signal (the same command goes on)."
    )
    parser.add_argument("sweep", help="a sweep file, as in configs/sweeps/")
    parser.add_argument(
        "--executor",
        default="local",
        choices=("local", "slurm", "debug"),
        help="where runs go: processes of this machine, a SLURM cluster, this process; default: local",
    )
    parser.add_argument(
        "--max-parallel", type=int, metavar="N", help="runs at once; default: what fits (cores, or GPUs)"
    )
    parser.add_argument("--work-dir", help="default: work_dirs/sweeps/<the sweep's name>")
    parser.add_argument(
        "--retries", type=int, default=2, help="how often a run that failed is tried again; default: 2"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs and end")
    add_config_options(parser, "val_dataloader.num_workers=0; of every run")
    said = "submitit's parameters, such as partition=gpu time=600 cpus_per_task=8 mem=32GB"
    add_key_values(parser, "--slurm", said)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Runs the sweep, or lists it."""
    from ssod.study.sweep.command import sweep
    from ssod.study.sweep.prepare import listing

    if arguments.dry_run:
        print(listing(arguments.sweep, arguments.work_dir, arguments.cfg_options))
        return 0
    return sweep(
        arguments.sweep,
        executor=arguments.executor,
        max_parallel=arguments.max_parallel,
        work_dir=arguments.work_dir,
        options=arguments.cfg_options,
        retries=arguments.retries,
        slurm=arguments.slurm,
    )


if __name__ == "__main__":
    sys.exit(main())

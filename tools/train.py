"""Trains a config: `python tools/train.py configs/soft_teacher/shapes.py`; see --help."""

import argparse
import os
import sys

# Before torch comes: by default its CPU threads spin while they wait for each other, and where another
# process (a loader worker, a second run) takes their core, a step costs several times as much.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from ssod.cli import add_config_options, exit_code


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Trains a detector. Exit codes: 0 done, 2 bad input, 75 stopped by a signal "
        "(run again with --resume), 1 anything else."
    )
    parser.add_argument("config", help="a config file, as in configs/")
    parser.add_argument("--work-dir", help="default: work_dirs/<the config's place below configs/>")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="PATH",
        help="go on from the work dir's last checkpoint, or from PATH",
    )
    parser.add_argument(
        "--scale-to",
        metavar="WORLDxLABELED+UNLABELED",
        help="train on WORLD processes with so many images each, rate and schedule scaled from the config's "
        "size, such as 2x1+4; see docs/cluster.md",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--seed", type=int, help="default: the config's")
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        help="not needed: under torchrun or srun the rank is found without",
    )
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
    add_config_options(parser, "train_cfg.max_iters=100")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Trains; 75 where a signal stopped it."""
    from mmengine.dist import is_main_process

    from ssod.engine.train import train

    result = train(
        arguments.config,
        work_dir=arguments.work_dir,
        resume=arguments.resume,
        amp=arguments.amp,
        seed=arguments.seed,
        launcher=arguments.launcher,
        options=arguments.cfg_options,
        scale_to=arguments.scale_to,
    )
    if result["status"] != "stopped":
        return 0
    if is_main_process():
        print("run the same command with --resume to go on")
    return 75


if __name__ == "__main__":
    sys.exit(main())

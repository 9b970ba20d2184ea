"""What the tools' command lines share: the option for changes to the config, and the exit codes."""

import argparse
import sys
import traceback
from collections.abc import Callable

from ssod.errors import UserError


def add_config_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Adds --cfg-options KEY=VALUE ..., with an example for its help."""
    from mmengine.config import DictAction

    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help=f"changes to the config, such as {example}",
    )


def exit_code(run: Callable[[], int]) -> int:
    """What `run` returns; 2 and one line for bad input, 1 and the traceback for anything else."""
    try:
        return run()
    except UserError as error:
        print(f"error: {error.one_line}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 1

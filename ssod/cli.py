"""What the tools' command lines share: the option for changes to the config, and the exit codes."""

import argparse
import sys
import traceback
from collections.abc import Callable

from ssod.errors import RunError, UserError


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
    """What `run` returns; 2 for bad input and 1 for a RunError, with one line; 1 and the traceback else."""
    try:
        return run()
    except UserError as error:
        print(f"error: {error.one_line}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1

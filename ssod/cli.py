"""What the tools' command lines share: the option for changes to the config, and the exit codes."""

import argparse
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ssod.errors import RunError, UserError


def add_config_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Adds --cfg-options KEY=VALUE ..., with an example for its help."""
    add_key_values(parser, "--cfg-options", f"changes to the config, such as {example}")


def add_key_values(parser: argparse.ArgumentParser, name: str, said: str) -> None:
    """Adds an option that takes KEY=VALUE ... as mmengine reads them; said: its help."""
    from mmengine.config import DictAction

    class KeyValues(DictAction):  # type: ignore[misc]
        """mmengine's, which fails with a traceback at a word without =."""

        def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
            for word in values:
                if not word.partition("=")[0] or "=" not in word:
                    parser.error(f"{name} {word}: give KEY=VALUE, without spaces around =")
            super().__call__(parser, namespace, values, option)

    parser.add_argument(name, nargs="+", action=KeyValues, default={}, metavar="KEY=VALUE", help=said)


def add_checkpoint_options(parser: argparse.ArgumentParser, both: bool = False) -> None:
    """Adds config, checkpoint and --which of its networks; both: one may ask for, and gets, both."""
    parser.add_argument("config", help="the config that the checkpoint was trained with")
    parser.add_argument("checkpoint", help="such as work_dirs/.../checkpoints/best_teacher.pth")
    choices = ("teacher", "student", "both") if both else ("teacher", "student")
    said = "default: both" if both else "default: the teacher, if there is one"
    parser.add_argument("--which", choices=choices, default="both" if both else None, help=said)


def add_image_options(parser: argparse.ArgumentParser, min_score: float, out: str) -> None:
    """Adds what a search for boxes on images takes: config, checkpoint, images, --out and how to load."""
    add_checkpoint_options(parser)
    parser.add_argument(
        "images", help="a folder, an image, a .txt list with one path a line, or a COCO .json file"
    )
    parser.add_argument("--out", required=True, metavar=out, help="where to write")
    parser.add_argument(
        "--min-score", type=float, default=min_score, help=f"boxes below are dropped; default: {min_score}"
    )
    parser.add_argument("--batch-size", type=int, help="default: the config's val_dataloader's")
    parser.add_argument("--num-workers", type=int, help="default: the config's val_dataloader's")
    parser.add_argument(
        "--image-root",
        metavar="DIR",
        help="where relative names of a list or COCO file begin; default: its folder",
    )
    parser.add_argument("--resume", action="store_true", help="go on where a stopped or killed run was")
    add_config_options(parser, "model.detector.test_cfg.rcnn.max_per_img=50")


def exit_code(run: Callable[[], int]) -> int:
    """What `run` returns; 2 for bad input, 1 for a RunError and 130 for Ctrl-C, with one line; 1 and the
    traceback else.

    Training and labeling listen to Ctrl-C themselves, and return what they say of it.
    """
    try:
        return run()
    except UserError as error:
        print(f"error: {error.one_line}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        return 1

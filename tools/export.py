"""A plain mmdet detector: `python tools/export.py CONFIG CHECKPOINT --out DIR`; see --help."""

import argparse
import sys

from ssod.cli import add_checkpoint_options, add_config_options, exit_code
from ssod.errors import UserError


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Writes DIR/config.py and DIR/weights.pth, which mmdet's init_detector loads without "
        "ssod. Exit codes: 0 done, 2 bad input, 1 anything else."
    )
    add_checkpoint_options(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument("--onnx", action="store_true", help="not supported: says what writes ONNX instead")
    add_config_options(parser, "model.detector.test_cfg.rcnn.score_thr=0.3")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    arguments = parse(words)
    return exit_code(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Exports, and says what was written."""
    from ssod.registry import register_all_modules

    register_all_modules()  # before mmdet's datasets are imported, whose greetings it keeps off the console
    from ssod.engine.commands.export import NO_ONNX, export

    if arguments.onnx:
        raise UserError(NO_ONNX.format(arguments.out))
    written = export(
        arguments.config,
        arguments.checkpoint,
        arguments.out,
        which=arguments.which,
        options=arguments.cfg_options,
    )
    print(f"wrote {written.config} and {written.weights}: the {written.network} of {arguments.checkpoint}")
    for note in written.notes:
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m data.prepare`: writes data sets that `data.source=tfds:NAME` reads."""

import argparse
import sys
import time
from collections.abc import Sequence

from data.prepare import glyphs, writing

_EPILOG = """\
examples:
  python -m data.prepare glyphs
  python -m data.prepare glyphs --data_dir=/data --train_per_class=50
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and prepares; errors end in one line and status 1."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"data.prepare {args.command}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.prepare",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data_dir", default="", help="default: TFDS's, ~/tensorflow_datasets")

    glyph = commands.add_parser(
        "glyphs", parents=[common], help="70 classes of glyphs, drawn from matplotlib's fonts"
    )
    glyph.add_argument("--train_per_class", type=int, default=200)
    glyph.add_argument("--test_per_class", type=int, default=30)
    glyph.add_argument("--seed", type=int, default=0)
    glyph.set_defaults(run=_glyphs)
    return parser


def _glyphs(args: argparse.Namespace) -> None:
    recipe = glyphs.recipe(
        train_per_class=args.train_per_class, test_per_class=args.test_per_class, seed=args.seed
    )
    start = time.monotonic()
    folder, existed = writing.write(recipe, args.data_dir)
    if existed:
        print(f"{folder} is there already")
        return
    classes = len(glyphs.CLASSES)
    pictures = classes * (args.train_per_class + args.test_per_class)
    seconds = time.monotonic() - start
    print(f"wrote {folder}: {pictures:,} pictures of {classes} classes in {seconds:.0f} s")


if __name__ == "__main__":
    main()

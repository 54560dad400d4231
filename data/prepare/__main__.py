"""`python -m data.prepare`: writes the data sets for training, as TFDS files or text stores."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.prepare import catalogue, writing
from data.prepare.clips import audioset
from data.prepare.synthetic import glyphs, scenes
from data.prepare.text import subwords, text

_EPILOG = """\
examples:
  python -m data.prepare glyphs
  python -m data.prepare glyphs --data_dir=/data --train_per_class=50
  python -m data.prepare scenes --out=/data
  python -m data.prepare imagenet --manual_dir=/downloads --data_dir=/data
  python -m data.prepare tfds oxford_iiit_pet
  python -m data.prepare audioset --csv=eval_segments.csv --clips=/clips --out=/data
  python -m data.prepare text --input=/books --input=more.jsonl.zst --out=/data --name=books
  python -m data.prepare sentencepiece --input=/data/mine/train --out=/data/mine.model
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and prepares; errors end in one line and status 1."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ImportError, ValueError, OSError) as error:
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
    common.add_argument(
        "--data_dir", default="", help="default: that of TFDS, ~/tensorflow_datasets"
    )

    glyph = commands.add_parser(
        "glyphs", parents=[common], help="69 classes of glyphs, drawn from matplotlib's fonts"
    )
    glyph.add_argument("--train_per_class", type=int, default=200)
    glyph.add_argument("--test_per_class", type=int, default=30)
    glyph.add_argument("--seed", type=int, default=0)
    glyph.set_defaults(run=_glyphs)

    scene = commands.add_parser("scenes", help="synthetic scenes with sound: 20 classes of clips")
    scene.add_argument(
        "--out", required=True, help="data_dir to write to; the media files are written there too"
    )
    scene.add_argument("--train_clips", type=int, default=scenes.TRAIN_CLIPS)
    scene.add_argument("--eval_clips", type=int, default=scenes.EVAL_CLIPS)
    scene.add_argument("--seconds", type=float, default=scenes.SECONDS, help="length of a clip")
    scene.add_argument("--seed", type=int, default=0)
    scene.add_argument("--processes", type=int, default=2)
    scene.set_defaults(run=_scenes)

    imagenet = commands.add_parser(
        "imagenet", parents=[common], help="ILSVRC2012 from its official tars"
    )
    imagenet.add_argument(
        "--manual_dir", required=True, help=f"folder with {' and '.join(catalogue.IMAGENET_TARS)}"
    )
    imagenet.set_defaults(run=_imagenet)

    tfds = commands.add_parser(
        "tfds", parents=[common], help="any data set of labelled images or texts from TFDS"
    )
    tfds.add_argument("name", help="name in TFDS, such as mnist, oxford_iiit_pet or glue/cola")
    tfds.add_argument("--manual_dir", default="", help="folder of files that TFDS cannot download")
    tfds.set_defaults(run=_tfds)

    # Sets of clips and of text bring their own flags: `add_parser(commands)` sets `run`.
    audioset.add_parser(commands)
    subwords.add_parser(commands)
    text.add_parser(commands)
    return parser


def _imagenet(args: argparse.Namespace) -> None:
    _say(*catalogue.prepare_imagenet(args.manual_dir, args.data_dir))


def _tfds(args: argparse.Namespace) -> None:
    _say(*catalogue.prepare(args.name, args.data_dir, manual_dir=args.manual_dir))


def _say(folder: Path, existed: bool) -> None:
    print(f"{folder} already exists" if existed else f"wrote {folder}")


def _glyphs(args: argparse.Namespace) -> None:
    recipe = glyphs.recipe(
        train_per_class=args.train_per_class, test_per_class=args.test_per_class, seed=args.seed
    )
    _say(*writing.write(recipe, args.data_dir))


def _scenes(args: argparse.Namespace) -> None:
    scenes.prepare(
        args.out,
        train_clips=args.train_clips,
        eval_clips=args.eval_clips,
        seed=args.seed,
        seconds=args.seconds,
        processes=args.processes,
    )


if __name__ == "__main__":
    main()

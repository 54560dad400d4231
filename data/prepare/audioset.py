"""`python -m data.prepare audioset`: AudioSet's tables and your media files -> clips for training.

The 2 million segments are published as tables, the videos are not. Of the files that are below
--clips those are used that carry a segment's id; the rest is listed as missing.
"""

import argparse
from typing import Any

from data.prepare import beam, clips, plans


def add_parser(commands: Any) -> None:
    """Adds the command to those of `python -m data.prepare`."""
    parser = commands.add_parser(
        "audioset",
        help="AudioSet from its segments files and a folder of clips",
        description=__doc__,
    )
    parser.add_argument(
        "--csv",
        action="append",
        required=True,
        metavar="FILE",
        help="balanced_train_segments.csv or alike; a split each, repeat it for more",
    )
    parser.add_argument("--clips", required=True, metavar="DIR", help="holds VIDEO.mp4 or alike")
    parser.add_argument(
        "--out", "--data_dir", dest="out", default="", help="default: TFDS's, ~/tensorflow_datasets"
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="class_labels_indices.csv; default: AudioSet's 527 classes"
    )
    parser.add_argument("--name", default="audioset", help="the data set's, default: audioset")
    parser.add_argument(
        "--processes", type=int, default=0, help="decode at once; default: one on each core"
    )
    parser.add_argument(
        "--clips_per_shard", type=int, default=plans.CLIPS_PER_SHARD, help="default: %(default)s"
    )
    parser.add_argument(
        "--beam",
        metavar="OPTIONS",
        help="write shards by Apache Beam with these pipeline options, such as "
        "--beam='--runner=FlinkRunner --parallelism=64'; empty: its runner on this machine",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    clips.prepare(
        args.name,
        args.csv,
        args.clips,
        args.out,
        args.labels,
        processes=args.processes,
        clips_per_shard=args.clips_per_shard,
        run=None if args.beam is None else beam.by_beam(args.beam),
    )

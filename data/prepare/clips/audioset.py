"""`python -m data.prepare audioset`: AudioSet's tables and your media files -> clips for training.

The 2 million segments are published as tables, the videos are not. Of the files that are below
--clips those are used that carry a segment's id; the rest is listed as missing.
"""

import argparse
from typing import Any

from data.prepare.clips import assembly, beam, clips, dmvr, plans


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
        default=[],
        metavar="FILE",
        help="balanced_train_segments.csv or alike; a split each, repeat it for more",
    )
    parser.add_argument("--clips", metavar="DIR", help="holds VIDEO.mp4 or alike")
    parser.add_argument(
        "--records",
        action="append",
        default=[],
        metavar="SPLIT=GLOB",
        help="in place of --csv and --clips: DMVR's TFRecords, such as eval='/dmvr/eval-*'",
    )
    parser.add_argument(
        "--records_fps", type=float, default=25.0, help="their frames per second, default: 25"
    )
    parser.add_argument(
        "--records_rate", type=int, default=48_000, help="their samples per second, default: 48000"
    )
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
    if bool(args.records) == bool(args.csv) or bool(args.csv) != bool(args.clips):
        raise ValueError("give --csv with --clips, or --records")
    by_beam = None if args.beam is None else beam.by_beam(args.beam)
    if args.records:
        pairs = [record.partition("=") for record in args.records]
        if not all(glob for _, _, glob in pairs) or len({split for split, *_ in pairs}) < len(
            pairs
        ):
            raise ValueError(f"--records must be SPLIT=GLOB, each split once; got {args.records}")
        dmvr.prepare(
            args.name,
            {split: glob for split, _, glob in pairs},
            args.out,
            args.labels,
            frames_per_second=args.records_fps,
            sample_rate=args.records_rate,
            run=by_beam or assembly.by_processes(args.processes),
        )
        return
    clips.prepare(
        args.name,
        args.csv,
        args.clips,
        args.out,
        args.labels,
        processes=args.processes,
        clips_per_shard=args.clips_per_shard,
        run=by_beam,
    )

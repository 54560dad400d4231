"""`python -m data.prepare audioset`: AudioSet's tables and your media files -> clips for training.

AudioSet publishes tables of 2 million segments, but not the videos. Files under --clips are matched
to segments by their video id; segments without a file are reported as missing.
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
        help="a segments file such as balanced_train_segments.csv; one split each, may be repeated",
    )
    parser.add_argument(
        "--clips", metavar="DIR", help="folder of media files named by video id, such as VIDEO.mp4"
    )
    parser.add_argument(
        "--records",
        action="append",
        default=[],
        metavar="SPLIT=GLOB",
        help="instead of --csv and --clips: DMVR TFRecords, such as eval='/dmvr/eval-*'",
    )
    parser.add_argument(
        "--records_fps",
        type=float,
        default=25.0,
        help="frames per second of --records, default: 25",
    )
    parser.add_argument(
        "--records_rate",
        type=int,
        default=48_000,
        help="samples per second of --records, default: 48000",
    )
    parser.add_argument(
        "--out",
        "--data_dir",
        dest="out",
        default="",
        help="default: that of TFDS, ~/tensorflow_datasets",
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="class_labels_indices.csv; default: AudioSet's 527 classes"
    )
    parser.add_argument(
        "--name", default="audioset", help="name of the data set, default: audioset"
    )
    parser.add_argument(
        "--processes", type=int, default=0, help="parallel decoders; default: one per core"
    )
    parser.add_argument(
        "--clips_per_shard", type=int, default=plans.CLIPS_PER_SHARD, help="default: %(default)s"
    )
    parser.add_argument(
        "--beam",
        metavar="OPTIONS",
        help="write the shards with Apache Beam and these pipeline options, such as "
        "--beam='--runner=FlinkRunner --parallelism=64'; empty: the local runner",
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

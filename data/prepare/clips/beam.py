"""Shards by Apache Beam, for more clips than one machine prepares (`pip install apache-beam`).

The folders of clips and of the data set must be shared by all workers; Beam passes the jobs only.
Shards that are there are kept, so a pipeline that failed goes on where it was.
"""

import shlex
from collections.abc import Iterator, Sequence

from data.prepare.clips import assembly, shards


def by_beam(options: str) -> assembly.RunJobs:
    """Returns what writes shards by a pipeline.

    Args:
      options: Beam's own, such as `--runner=FlinkRunner --parallelism=64`; the runner on this
        machine when empty.
    """

    def run(jobs: Sequence[shards.Job]) -> Iterator[None]:
        try:
            import apache_beam as beam
            from apache_beam.options import pipeline_options
        except ImportError as error:
            raise ValueError("--beam needs Apache Beam: `pip install apache-beam`") from error
        if jobs:
            wanted = pipeline_options.PipelineOptions(shlex.split(options))
            with beam.Pipeline(options=wanted) as pipeline:
                created = pipeline | beam.Create(jobs) | beam.Reshuffle()
                _ = created | beam.Map(shards.write)
        return iter(())  # Beam tells its progress itself

    return run

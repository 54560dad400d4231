"""Batches: an iterator over a random-access Grain pipeline whose position is one number.

Batch k is a pure function of (data set, seed, k, host): it names stream positions, these name
(epoch, index) pairs, and an example's randomness depends on (seed, epoch, index) only. To resume
is therefore to start counting at k, at no cost, under any number of threads or workers.

An example that cannot be read (`BrokenExample`) is a row of zeros whose `mask` is False, so it
moves no other; each is told once and counted against a limit.

Grain runs the function ahead of the consumer, in threads or in worker processes. One element of
the Grain data set is one whole batch: Grain's own per-example shuffle and map cost 20 us each,
more than augmenting a small image does.
"""

import dataclasses
import functools
import signal
import sys

import grain
import numpy as np
from absl import flags

from data import memory, shard, transforms
from data.dataset import BrokenExample, Dataset, Example, name, stored

Batch = dict[str, np.ndarray]
Spec = dict[str, tuple[tuple[int, ...], np.dtype]]  # name -> (shape, dtype)
Broken = dict[int, str]  # index of an example -> "name: reason"

_MOST_WORKERS, _MOST_EXAMPLES = 2**10, 2**22


class Batches:
    """Iterates over this host's part of each global batch, as arrays with a leading axis B / H.

    In training the stream is endless and every epoch is a new permutation; a batch may span two
    epochs. In evaluation one pass holds each example once, in order; the last batches are filled
    up with zeros, `mask` is False there, and `iter()` starts the pass again.

    Attributes:
      batch_size: global.
      num_examples: of one epoch, on all hosts together.
      num_batches: of one pass; None in training.
      spec: name -> (shape, dtype) of this host's batches.
      broken: index -> "name: reason" of the unreadable examples in the batches delivered so far,
        on this host.

    Raises:
      ValueError: no readable example, a bad seed, or a batch size that the hosts cannot share;
        from `next`, more than `broken_limit` unreadable examples.
      ChildProcessError: from `next`, a worker process died.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        train: bool,
        host_index: int = 0,
        host_count: int = 1,
        workers: int = 0,
        broken_limit: int = 0,
    ):
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be in 0..2**63 - 1, got {seed}")
        if workers < 0:
            raise ValueError(f"data.workers must be at least 0 (0: threads only), got {workers}")
        if workers > _MOST_WORKERS or batch_size > _MOST_EXAMPLES:
            raise ValueError(
                f"data.workers={workers} and a batch of {batch_size} examples must be at most "
                f"{_MOST_WORKERS:,} and {_MOST_EXAMPLES:,}: lower them"
            )
        if broken_limit < 0:
            raise ValueError(f"data.broken_limit must be at least 0, got {broken_limit}")
        share = shard.Share(batch_size, host_index, host_count)
        self.batch_size = batch_size
        self.num_examples = len(dataset.source)
        if not self.num_examples:
            raise ValueError("the data set has no examples")
        self.num_batches = None if train else share.batches(self.num_examples)
        self._assemble = Assemble(dataset, share, seed, train, broken_limit)
        self.spec = self._assemble.spec
        self.broken: Broken = {}
        self._workers = workers
        self._delivered = 0
        self._iterator = None

    def __iter__(self) -> "Batches":
        if self.num_batches is not None:
            self._start_at(0)
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._grain_iterator()
        batch, broken = self._next()
        self._delivered += 1
        self.broken |= broken
        check_broken(self.broken, self._assemble.broken_limit)
        return batch

    def state(self) -> dict[str, int]:
        """Returns the position, fit for JSON: how many batches have been delivered."""
        return {"batches": self._delivered}

    def restore(self, state: dict[str, int]) -> None:
        """Moves to a position that `state()` returned, here or in another process.

        Raises:
          ValueError: not such a state, or past the end of an evaluation pass.
        """
        delivered = state.get("batches")
        if not isinstance(delivered, int) or set(state) != {"batches"} or delivered < 0:
            raise ValueError(f'the state must be {{"batches": k}} with k >= 0, got {state}')
        if self.num_batches is not None and delivered > self.num_batches:
            raise ValueError(
                f"state {state} is past the last of {self.num_batches} batches: "
                "it was saved with another split or batch size"
            )
        self._start_at(delivered)

    def close(self) -> None:
        """Stops threads and worker processes; the next batch starts them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start_at(self, delivered: int) -> None:
        self.close()
        self._delivered = delivered

    def _next(self) -> tuple[Batch, Broken]:
        try:
            return next(self._iterator)
        except RuntimeError as error:
            if "Worker process was terminated" not in str(error):
                raise
            raise ChildProcessError(
                f"one of data.workers={self._workers} processes died while preparing batch "
                f"{self._delivered} or a later one ({error}). Exit code -9 often means that the "
                "machine ran out of memory: lower data.workers or data.batch_size, then run the "
                "command again; it resumes from the last checkpoint"
            ) from error

    def _grain_iterator(self) -> grain.DatasetIterator:
        stop = sys.maxsize if self.num_batches is None else self.num_batches
        batches = grain.MapDataset.range(self._delivered, stop).map(self._assemble)
        threads = self._assemble.dataset.threads
        # One batch more than threads: a thread never waits for the consumer to take its batch.
        ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
        pipeline = batches.to_iter_dataset(ahead)
        if self._workers:
            # Grain reads absl flags here; a notebook or a test has never parsed any.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            pipeline = pipeline.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2),
                worker_init_fn=_leave_ctrl_c_to_the_run,
            )
        return iter(pipeline)


def _leave_ctrl_c_to_the_run(index: int, workers: int) -> None:
    """Ignores what a terminal sends to all its processes: the run still needs batches to stop."""
    del index, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclasses.dataclass(frozen=True)
class Assemble(grain.transforms.Map):
    """Batch number -> this host's part of that batch, and what is broken in it."""

    dataset: Dataset
    share: shard.Share
    seed: int
    train: bool
    broken_limit: int

    def map(self, element: int) -> tuple[Batch, Broken]:
        """Returns batch number `element`."""
        memory.keep_freed()  # here, as this may be a worker process
        examples = len(self.dataset.source)
        batch = {field: np.zeros(shape, dtype) for field, (shape, dtype) in self.spec.items()}
        broken: Broken = {}
        for row, position in enumerate(self.share.positions(element)):
            if self.train or position < examples:
                example = self._example(*divmod(int(position), examples), broken)
                if example is not None:
                    _fill(batch, row, example)
        return batch, broken

    @functools.cached_property
    def spec(self) -> Spec:
        """Name -> (shape, dtype) of a batch, learnt from the first readable example."""
        size, broken = self.share.local_size, {}
        for place in range(len(self.dataset.source)):
            example = self._example(0, place, broken)
            if example is not None:
                fields = {field: np.asarray(value) for field, value in example.items()}
                spec = {field: ((size, *x.shape), x.dtype) for field, x in fields.items()}
                return spec | {"mask": ((size,), np.dtype(bool))}
            check_broken(broken, self.broken_limit)
        raise ValueError(f"none of the {len(broken)} examples can be read: {_last(broken)}")

    def _example(self, epoch: int, place: int, broken: Broken) -> Example | None:
        """Returns the example at a place of an epoch's order; None, and an entry, if broken."""
        source = self.dataset.source
        index = int(_order(self.seed, epoch, len(source))[place]) if self.train else place
        rng = transforms.generator(self.seed, transforms.EXAMPLE, epoch, index)
        try:
            return transforms.apply(self.dataset.transforms, source.example(index, epoch), rng)
        except BrokenExample as error:
            number = stored(source, index, epoch)
            broken[number] = f"{name(source, number)}: {error}"
            return None


def check_broken(broken: Broken, limit: int) -> None:
    """Raises ValueError if more examples are broken than the limit allows."""
    if len(broken) > limit:
        raise ValueError(
            f"{len(broken)} examples cannot be read, and data.broken_limit is {limit}. The last: "
            f"{_last(broken)}. Repair or remove them, prepare the data again, or raise the limit"
        )


def _last(broken: Broken, count: int = 3) -> str:
    return "; ".join(list(broken.values())[-count:])


# Two: a batch may span two epochs. A permutation of ImageNet takes 10 MB and 20 ms.
@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, examples: int) -> np.ndarray:  # [N]
    return transforms.generator(seed, transforms.ORDER, epoch).permutation(examples)


def _fill(batch: Batch, row: int, example: Example) -> None:
    """Writes an example into its row, and marks the row as real."""
    for field, rows in batch.items():
        if field == "mask":
            rows[row] = True
            continue
        if np.shape(example[field]) != rows.shape[1:]:
            raise ValueError(
                f"field {field!r} has shape {np.shape(example[field])} in one example and "
                f"{rows.shape[1:]} in the first: add a transform (a crop, a resize) that makes "
                "them equal"
            )
        rows[row] = example[field]

"""Batches: an iterator over a random-access Grain pipeline whose position is one number.

Batch k is a pure function of (data set, seed, k, host): it names stream positions, these name
(epoch, index) pairs, and an example's randomness depends on (seed, epoch, index) only. To resume
is therefore to start counting at k, at no cost, under any number of threads or workers.

Grain runs the function ahead of the consumer, in threads or in worker processes. One element of
the Grain data set is one whole batch: Grain's own per-example shuffle and map cost 20 us each,
more than augmenting a small image does.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from data import shard, transforms
from data.dataset import Dataset, Example

Batch = dict[str, np.ndarray]
Spec = dict[str, tuple[tuple[int, ...], np.dtype]]  # name -> (shape, dtype)


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

    Raises:
      ValueError: no example, a bad seed, or a batch size that the hosts cannot share.
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
    ):
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be in 0..2**63 - 1, got {seed}")
        if workers < 0:
            raise ValueError(f"data.workers must be at least 0 (0: threads only), got {workers}")
        share = shard.Share(batch_size, host_index, host_count)
        self.batch_size = batch_size
        self.num_examples = len(dataset.source)
        if not self.num_examples:
            raise ValueError("the data set has no examples")
        self.num_batches = None if train else share.batches(self.num_examples)
        self._assemble = Assemble(dataset, share, seed, train)
        self.spec = self._assemble.spec
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
        batch = next(self._iterator)
        self._delivered += 1
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
            raise ValueError(f'a state is {{"batches": k}} with k >= 0, got {state}')
        if self.num_batches is not None and delivered > self.num_batches:
            raise ValueError(
                f"state {state} lies past the pass of {self.num_batches} batches: "
                "it belongs to another split or batch size"
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
                grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2)
            )
        return iter(pipeline)


@dataclasses.dataclass(frozen=True)
class Assemble(grain.transforms.Map):
    """Batch number -> this host's part of that batch."""

    dataset: Dataset
    share: shard.Share
    seed: int
    train: bool

    def map(self, element: int) -> Batch:
        """Returns batch number `element`."""
        examples = len(self.dataset.source)
        positions = self.share.positions(element)  # [B / H]
        mask = np.full(len(positions), True) if self.train else positions < examples
        stacked = [self._example(*divmod(int(p), examples)) for p in positions[mask]]
        return _stack(stacked, self.spec) | {"mask": mask}

    @functools.cached_property
    def spec(self) -> Spec:
        """Name -> (shape, dtype) of a batch, learnt from the first example."""
        example = {name: np.asarray(value) for name, value in self._example(0, 0).items()}
        size = self.share.local_size
        spec = {name: ((size, *value.shape), value.dtype) for name, value in example.items()}
        return spec | {"mask": ((size,), np.dtype(bool))}

    def _example(self, epoch: int, place: int) -> Example:
        """Returns the example at a place of an epoch's order."""
        source = self.dataset.source
        index = int(_order(self.seed, epoch, len(source))[place]) if self.train else place
        rng = transforms.generator(self.seed, transforms.EXAMPLE, epoch, index)
        return transforms.apply(self.dataset.transforms, source.example(index, epoch), rng)


# Two: a batch may span two epochs. A permutation of ImageNet takes 10 MB and 20 ms.
@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, examples: int) -> np.ndarray:  # [N]
    return transforms.generator(seed, transforms.ORDER, epoch).permutation(examples)


def _stack(examples: Sequence[Example], spec: Spec) -> Batch:
    """Stacks examples, with rows of zeros up to the batch size of the spec."""
    batch = {}
    for name, (shape, dtype) in spec.items():
        if name == "mask":
            continue
        rows = [example[name] for example in examples]
        _check_shapes(name, rows, shape[1:])
        rows += [np.zeros(shape[1:], dtype)] * (shape[0] - len(rows))
        batch[name] = np.stack(rows)
    return batch


def _check_shapes(name: str, rows: Sequence[Any], shape: tuple[int, ...]) -> None:
    for row in rows:
        if np.shape(row) != shape:
            raise ValueError(
                f"field {name!r} has shape {np.shape(row)} in one example and {shape} in the "
                "first: add a transform (a crop, a resize) that makes them equal"
            )

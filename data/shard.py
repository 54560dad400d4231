"""Which part of each global batch belongs to this host.

Examples form one global stream of positions 0, 1, 2, … Global batch k is the positions
[k * B, (k + 1) * B), and host h of H holds the h-th contiguous B / H of them, so that the hosts'
parts laid end to end are exactly the batch that one host alone would hold.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Share:
    """This host's share of every global batch.

    Raises:
      ValueError: the batch cannot be split evenly, or the host index is out of range.
    """

    batch_size: int  # global
    host_index: int = 0
    host_count: int = 1

    def __post_init__(self):
        if self.host_count < 1 or not 0 <= self.host_index < self.host_count:
            raise ValueError(
                f"host_index {self.host_index} is not in 0..{self.host_count - 1} "
                f"(host_count {self.host_count}): pass jax.process_index(), jax.process_count()"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.batch_size % self.host_count:
            below = self.batch_size - self.batch_size % self.host_count
            choices = [size for size in (below, below + self.host_count) if size]
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by {self.host_count} hosts: "
                f"use {' or '.join(map(str, choices))}"
            )

    @property
    def local_size(self) -> int:
        """Examples per batch on this host."""
        return self.batch_size // self.host_count

    def positions(self, batch: int) -> np.ndarray:  # [B / H] int64
        """Returns the stream positions that this host holds in global batch number `batch`."""
        start = batch * self.batch_size + self.host_index * self.local_size
        return np.arange(start, start + self.local_size)

    def batches(self, examples: int) -> int:
        """Returns how many batches cover `examples` once: the same number on every host.

        Hosts must agree, or those that still have a batch would wait for ever in a collective.
        The positions past the end are padding.
        """
        return -(-examples // self.batch_size)

"""Training crops of a text store: some documents concatenated, a window cut out of them.

Perceiver IO (appendix F.3) concatenates 10 documents and crops. Here each epoch lays the documents
in a new random order and takes every `documents` of them as a group. Places at steps of the
window's length, from a random offset on, name the crops of the epoch: the group in which a place
lies, cut there, or as late as the group's end allows. So the number of crops never changes, no two
are the same, and each byte comes once an epoch or nearly so.
"""

import dataclasses
import functools

import numpy as np

from data import transforms
from data.dataset import Example
from data.text.text_store import Store


@dataclasses.dataclass(frozen=True, eq=False)
class Crops:
    """Random access to the crops of a store: each a function of (seed, epoch, index).

    A group shorter than a window is a crop of its own, which is filled up with padding later; it is
    drawn in proportion to its length.
    """

    store: Store
    seq_len: int  # L
    documents: int  # of a group
    seed: int

    def __post_init__(self):
        if self.documents < 1:
            raise ValueError(f"data.documents must be at least 0, got {self.documents}")
        if self.seq_len < 1:
            raise ValueError(f"data.seq_len must be at least 1, got {self.seq_len}")
        if len(self.store.bytes) < self.seq_len:
            raise ValueError(
                f"data.seq_len {self.seq_len} is longer than the whole text of "
                f"{len(self.store.bytes)} bytes in {self.store.folder}: use a shorter window or "
                "more text"
            )

    def __len__(self) -> int:
        return len(self.store.bytes) // self.seq_len

    def example(self, index: int, epoch: int) -> Example:
        """Returns {"bytes": uint8 [<= L], "source": 0, the number within a mixture}."""
        pieces = [self.store.document(i)[a:b] for i, a, b in self.pieces(index, epoch)]
        return {"bytes": np.concatenate(pieces), "source": np.int32(0)}

    def pieces(self, index: int, epoch: int) -> list[tuple[int, int, int]]:
        """Returns what a crop is made of: (document, first byte, byte after the last) of each."""
        offset, order, ends = self._layout(epoch)
        place = (offset + index * self.seq_len) % int(ends[-1])
        group = int(np.searchsorted(ends, place, side="right")) // self.documents
        first = group * self.documents
        last = min(first + self.documents, len(order)) - 1
        begin = int(ends[first - 1]) if first else 0
        start = max(begin, min(place, int(ends[last]) - self.seq_len))
        stop = min(start + self.seq_len, int(ends[last]))
        pieces = []
        for i in range(int(np.searchsorted(ends, start, side="right")), last + 1):
            begin = int(ends[i - 1]) if i else 0
            if begin >= stop:
                break
            if begin < ends[i]:  # no empty document
                piece = (max(start, begin) - begin, min(stop, int(ends[i])) - begin)
                pieces.append((int(order[i]), *piece))
        return pieces

    def mean_bytes(self) -> float:
        """Returns the bytes of an average crop: fewer than L where groups are short.

        Of one random order, the same for all seeds: it decides how long a mixture's epoch is.
        """
        _, _, ends = self._arrange(0, seed=0)
        last = np.arange(self.documents - 1, len(ends) - 1, self.documents)
        groups = np.diff(np.append(ends[last], ends[-1]), prepend=0)  # bytes of each
        # In float: the squares of 2**32 bytes leave 64 bits.
        return float(
            (groups * np.minimum(groups, self.seq_len).astype(np.float64)).sum() / ends[-1]
        )

    @functools.cached_property
    def _layout(self):
        # Two: a batch may span two epochs. Of each store its own, or a mixture would crowd out
        # one store's by the other's.
        return functools.lru_cache(maxsize=2)(functools.partial(self._arrange, seed=self.seed))

    def _arrange(self, epoch: int, seed: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Returns an epoch's offset, order of documents [D], and end of each in that order [D].

        12 bytes for each document: 50 MB for 10 GB of web pages.
        """
        rng = transforms.generator(seed, transforms.DOCUMENTS, epoch)
        documents = len(self.store)
        numbers = np.arange(documents, dtype=np.int32 if documents < 2**31 else np.int64)
        order = rng.permutation(numbers)
        ends = np.cumsum(np.diff(self.store.starts)[order])
        return int(rng.integers(ends[-1])), order, ends

    def __reduce__(self):
        # Without the layouts, which another process makes itself.
        return Crops, (self.store, self.seq_len, self.documents, self.seed)

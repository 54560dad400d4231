"""`text:NAME`: prepared text stores of any size; `text:NAME+OTHER`: a mixture of several.

    DATA_DIR/NAME/train/ and DATA_DIR/NAME/validation/    as `python -m data.prepare text` writes

Training crops windows out of `config.documents` documents at a time, in a new order each epoch, or
for `config.documents=0` out of all text as one stream. `config.weights` are the shares of a
mixture by tokens; without them all text counts alike. Evaluation goes through every byte in order,
text after text. An example's `source` is its text's place among the names.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import Dataset, DatasetInfo, Example, Source
from data.text import mixture, windows
from data.text.crops import Crops
from data.text.mixture import Mixture
from data.text.text_store import Store, open_store

_SAMPLE = 100_000_000  # bytes of `stream` of a mixture, at most


@dataclasses.dataclass(frozen=True, eq=False)
class StoreWindows:
    """Windows of all text of a store as one stream, see `windows.Windows`."""

    store: Store
    seq_len: int
    seed: int
    train: bool

    def __len__(self) -> int:
        return len(self._windows)

    def example(self, index: int, epoch: int) -> Example:
        """Returns a window of the stream."""
        return self._windows.example(index, epoch)

    @functools.cached_property
    def _windows(self) -> windows.Windows:
        return windows.Windows(self.store.bytes, self.seq_len, self.seed, self.train)

    def __reduce__(self):
        # A worker process maps the files itself: numpy would send it the whole text.
        return StoreWindows, (self.store, self.seq_len, self.seed, self.train)


def dataset(config: Any, split: str, *, seed: int, train: bool) -> Dataset:
    """Returns masked windows of a split."""
    sources = [_source(store, config, seed, train) for store in stores(config, split)]
    return windows.dataset(_mixed(sources, config, train), config, ("source",))


def info(config: Any) -> DatasetInfo:
    """Returns the facts; examples are windows of text, see `windows.window_bytes`."""
    examples = {}
    for split, train in (("train", True), ("validation", False)):
        sources = [_source(store, config, 0, train) for store in stores(config, split)]
        examples[split] = len(_mixed(sources, config, train))  # the same for all seeds
    return DatasetInfo(name=config.source, examples=examples)


def stream(config: Any, split: str) -> np.ndarray:  # [T] uint8, read-only
    """Returns all bytes of a store; of a mixture a sample in its proportions.

    The sample has the first bytes of each text, 100 MB together at most, which is plenty to count
    pairs of bytes.
    """
    opened = stores(config, split)
    if len(opened) == 1:
        return opened[0].bytes
    sizes = np.array([len(store.bytes) for store in opened])
    shares = _weights(config, len(opened)) or sizes
    shares = np.array(shares, np.float64) / np.sum(shares)
    size = min(_SAMPLE, (sizes / shares).min())
    parts = [store.bytes[: int(size * p)] for store, p in zip(opened, shares, strict=True)]
    return np.concatenate(parts)


def names(config: Any) -> tuple[str, ...]:
    """Returns the names of the mixed texts, by their numbers.

    Raises:
      ValueError: a name is empty, or given twice.
    """
    names = tuple(config.source.partition(":")[2].split("+"))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(
            f"data.source {config.source!r}: give each name of a mixture once, as in text:a+b"
        )
    return names


def stores(config: Any, split: str) -> list[Store]:
    """Returns the stores of a split.

    Raises:
      FileNotFoundError: one is not prepared.
      ValueError: one has no document.
    """
    root = data_folder(config.data_dir)
    return [_open(root, name, split) for name in names(config)]


def data_folder(data_dir: str) -> Path:
    """Returns where stores lie: the folder given, or when empty TFDS's own."""
    if data_dir:
        return Path(data_dir).expanduser()
    import tensorflow_datasets as tfds

    return Path(tfds.core.constants.DATA_DIR).expanduser()


def _open(root: Path, name: str, split: str) -> Store:
    if not (root / name).is_dir():
        raise FileNotFoundError(
            f"text {name!r} is not prepared under {root}: run `python -m data.prepare text "
            f"--input FILES --out {root} --name {name}`, or point data.data_dir at prepared stores"
        )
    store = open_store(root / name / split)
    if not len(store.bytes):
        raise ValueError(
            f"{store.folder} has no documents: prepare it again with another --eval_share, "
            "or with --eval_input"
        )
    return store


def _source(store: Store, config: Any, seed: int, train: bool) -> Source:
    size = windows.window_bytes(config)
    if train and config.documents:
        return Crops(store, size, config.documents, seed)
    return StoreWindows(store, size, seed, train)


def _mixed(sources: Sequence[Source], config: Any, train: bool) -> Source:
    weights = _weights(config, len(sources))
    if len(sources) == 1:
        return sources[0]
    lengths = [len(source) for source in sources]
    if not (train and weights):
        return Mixture(tuple(sources), tuple(lengths))
    means = [
        source.mean_bytes() if isinstance(source, Crops) else source.seq_len for source in sources
    ]
    return Mixture(tuple(sources), tuple(mixture.counts(weights, means, lengths)))


def _weights(config: Any, texts: int) -> tuple[float, ...]:
    weights = tuple(config.weights)
    if weights and len(weights) != texts:
        raise ValueError(
            f"data.weights {weights} has {len(weights)} values for the {texts} texts of "
            f"{config.source!r}: give one per text, or none"
        )
    return weights

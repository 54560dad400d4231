"""Host-side data: sources, transforms and batches of numpy arrays.

`load` gives the batches of a split, `info` the facts about a data set; both read the `data`
section of a config by attribute. A batch is a dict of arrays with a leading axis B, the host's
part of the global batch:

  images       image f32 [B, H, W, C], label i32 [B], mask bool [B]
  masked text  tokens i32 [B, M] (some hidden), targets i32 [B, M] (the original),
               input_mask bool [B, M] (True: a real byte), target_mask bool [B, M] (True: counts
               in the loss), source i32 [B] (which of a mixture's texts; 0: the only one),
               mask bool [B]
  labelled     tokens i32 [B, M], input_mask bool [B, M], label i32 [B] (f32: a number), mask bool
  texts        [B]; task i32 [B] where there are several
  pairs,       tokens, input_mask as above, of the first text; tokens_b i32 [B, M] and mask_b bool
  triplets     [B, M] of the second; tokens_c, mask_c of a third; label i32 [B] or f32 [B] (a score
               from 0 to 1), if there are labels; mask bool [B]
  clips        video u8 [B, T, H, W, 3], audio f32 [B, S], labels bool [B, K], mask bool [B]; in
               evaluation V windows of each: video [B, V, T, H, W, 3], audio [B, V, S]

`mask` is False for the rows that fill up the last batch of an evaluation pass, and for examples
that cannot be read.

A new data set is a module with `dataset(config, split, *, seed, train) -> Dataset` and
`info(config) -> DatasetInfo`, and a line in `DATASETS`.
"""

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np

from data import subset
from data.batches import Batch, Batches
from data.clips import clips, scenes
from data.dataset import Dataset, DatasetInfo
from data.images import digits, folder_images, noisy_digits, tfds_images
from data.labelled_text import (
    pairs_rows,
    rows,
    stdlib_docstrings,
    stdlib_syntax,
    tfds_pairs,
    tfds_text,
)
from data.text import stdlib_text, text_sources

__all__ = [
    "DATASETS",
    "SPLITS",
    "Batch",
    "Batches",
    "Dataset",
    "DatasetInfo",
    "info",
    "load",
    "stream",
]

SPLITS = ("train", "validation")

# The part of config.data.source before a colon -> its module.
DATASETS: dict[str, ModuleType] = {
    "clips": clips,
    "digits": digits,
    "folder": folder_images,
    "noisy_digits": noisy_digits,
    "pairs_rows": pairs_rows,
    "rows": rows,
    "scenes": scenes,
    "stdlib_docstrings": stdlib_docstrings,
    "stdlib_syntax": stdlib_syntax,
    "stdlib_text": stdlib_text,
    "text": text_sources,
    "tfds": tfds_images,
    "tfds_pairs": tfds_pairs,
    "tfds_text": tfds_text,
}
# What must follow the colon; without an entry there is none.
_REST = {
    "clips": "NAME",
    "folder": "PATH",
    "pairs_rows": "PATH",
    "rows": "PATH",
    "stdlib_docstrings": "FORM",
    "text": "NAME+...",
    "tfds": "NAME",
    "tfds_pairs": "NAME+...",
    "tfds_text": "NAME",
}


def load(
    config: Any,
    split: str,
    *,
    batch_size: int,
    seed: int,
    train: bool,
    host_index: int = 0,
    host_count: int = 1,
) -> Batches:
    """Returns the batches of a split.

    Args:
      config: the `data` section of a config.
      split: "train" or "validation".
      batch_size: global; each host gets its even part.
      seed: of order, augmentation and masking. Equal seeds give equal batches, so that every
        evaluation of a run sees the same masks.
      train: True for an endless, shuffled, augmented stream; False for one pass in order.
      host_index: of this process, 0 .. host_count - 1.
      host_count: processes that share the global batch.

    Raises:
      ValueError: a bad name or setting, with the remedy.
      FileNotFoundError: the data is not on this machine.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown: choose one of {SPLITS}")
    dataset = _module(config.source).dataset(config, split, seed=seed, train=train)
    dataset = subset.of_split(dataset, config, split)
    return Batches(
        dataset,
        batch_size=batch_size,
        seed=seed,
        train=train,
        host_index=host_index,
        host_count=host_count,
        workers=config.workers,
        broken_limit=config.broken_limit,
    )


def info(config: Any) -> DatasetInfo:
    """Returns the facts about the configured data set; errors as in `load`."""
    details = _module(config.source).info(config)
    return dataclasses.replace(details, examples=subset.counts(details.examples, config))


def stream(config: Any, split: str) -> np.ndarray:  # [T] uint8
    """Returns the bytes of a split of a text data set, of a mixture a sample; errors as in `load`.

    Text stores stay on disk, mapped into memory.
    """
    module = _module(config.source)
    if not hasattr(module, "stream"):
        raise ValueError(
            f"data.source {config.source!r} is not a text source: choose stdlib_text or text:NAME"
        )
    return module.stream(config, split)


def _module(name: str) -> ModuleType:
    key, colon, rest = name.partition(":")  # the rest may hold colons of its own
    if key not in DATASETS or bool(rest) != (key in _REST) or bool(colon) != bool(rest):
        choices = ", ".join(f"{key}:{_REST[key]}" if key in _REST else key for key in DATASETS)
        raise ValueError(f"data.source {name!r} is unknown: choose one of {choices}")
    return DATASETS[key]

"""Fixtures of the data tests: a `data` section with every field that the package reads."""

import ml_collections
import numpy as np
import pytest

_FIELDS = {
    "source": "digits",
    "data_dir": "",
    "train_examples": 0,
    "workers": 0,
    "image_size": 8,
    "channels": 1,
    "augment": "none",
    "crop_area": (0.08, 1.0),
    "rand_augment_layers": 0,
    "rand_augment_magnitude": 5,
    "batch_size": 7,
    "eval_batch_size": 5,
    "video": True,
    "audio": True,
    "frames": 5,
    "audio_samples": 9_600,
    "eval_windows": 3,
    "colour": 0.4,
    "time_jitter": 0,
    "class_balanced": False,
    "broken_limit": 100,
    "eval_examples": 0,
    "text_fields": (),
    "label_field": "label",
    "regression": False,
    "split_field": "",
    "score_range": (),
    "seq_len": 31,
    "weights": (),
    "documents": 10,
    "masking": "word",
    "mask_rate": 0.15,
    "span_length": 20.0,
    "tokenizer": "bytes",
    "piece_bytes": 5.0,
    "train_split": "",
    "eval_split": "",
}


@pytest.fixture
def make_config():
    """Returns a function: fields to change -> config section."""
    return lambda **fields: ml_collections.ConfigDict(_FIELDS | fields)


@pytest.fixture
def write_store():
    """Returns a function that writes a text store: folder, documents as bytes -> folder."""

    def write(folder, documents):
        folder.mkdir(parents=True)
        (folder / "bytes.bin").write_bytes(b"".join(documents))
        starts = np.cumsum([0, *map(len, documents)], dtype=np.int64)
        np.save(folder / "documents.npy", starts)
        return folder

    return write

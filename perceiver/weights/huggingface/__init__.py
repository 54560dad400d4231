"""Hugging Face's models: folders that `from_pretrained` and `save_pretrained` know.

These are their Perceivers, and as baselines BERT (BertForMaskedLM, `huggingface.bert`) and ViT
(ViTForImageClassification, `huggingface.vit`).

Weights of Perceivers become DeepMind's conventions, by which the hub's were trained; see
`huggingface.config`.

The 7x7 kernel of the convolutional image classifier exists in two layouts, which its shape does
not tell apart (`conv_kernel`). The hub's has its height and width swapped by the script that made
it ("hub"). Kernels that PyTorch trained, or that `save` wrote, are as PyTorch applies them
("torch"); `save` says so in config.json. Without a word there, a file is taken for the hub's: give
`conv_kernel="torch"` for one that was trained, or trained further, in PyTorch.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver.kinds import specs, usage
from perceiver.kinds.models import build
from perceiver.text import coders
from perceiver.weights import batch_norm, files, native, tensors
from perceiver.weights.fill import fill
from perceiver.weights.huggingface import bert, torch_files
from perceiver.weights.huggingface.classes import MODEL_TYPES, transformer_of
from perceiver.weights.huggingface.config import sides, spec_of
from perceiver.weights.huggingface.export import config_of, preprocessor_config, tokenizer_config
from perceiver.weights.huggingface.names import BATCHES, rules
from perceiver.weights.mapping import translate_back
from perceiver.weights.native import Saved
from perceiver.weights.stored import Arrays

__all__ = ["CONV_KERNEL", "MODEL_TYPES", "WEIGHTS", "arrays", "find_weights", "read", "save"]

CONV_KERNEL = "perceiver_conv_kernel"  # field of config.json
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZERS = ("tokenizer.json", "vocab.txt")  # of BERT
WRAPPERS = ("module.", "_orig_mod.", "model.")


def read(
    path: str | os.PathLike,
    *,
    spec: Mapping[str, Any] | None = None,
    conv_kernel: str | None = None,
) -> Saved:
    """Reads a model array by array.

    Args:
      path: a folder with config.json and weights (WEIGHTS), or the file of the weights with
        config.json beside it.
      spec: of the model, where config.json is missing or says too little.
      conv_kernel: "hub" or "torch"; None: as config.json says, else "hub".

    Raises:
      FileNotFoundError: there are no weights, or neither config.json nor a spec.
      ValueError: a file is broken, or its model has no counterpart, or the weights do not fit it.
    """
    weights = find_weights(path)
    config = _read_json(weights.parent / "config.json")
    if config is None and spec is None:
        raise FileNotFoundError(
            f"{weights.parent / 'config.json'} is missing; it describes the model (or give spec)"
        )
    config = config or {}
    processor = _read_json(weights.parent / "preprocessor_config.json") or {}
    stored = arrays(weights)
    if spec is None:
        spec = spec_of(config, {name: x.shape for name, x in stored.items()}, processor)
    try:
        model = build(spec)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{weights.parent}: config.json or spec: {error}") from error
    if transformer_of(model.spec) is bert:
        stored = bert.normalised(stored)
    conv_kernel = conv_kernel or config.get(CONV_KERNEL, "hub")
    tracked = int(stored[BATCHES].read()) if BATCHES in stored else 0
    params, state = fill(model, stored, rules(model.spec, conv_kernel), steps=tracked)
    usage = _usage(model.spec, config, processor)
    if usage.get("tokenizer") == coders.EXTERNAL:
        beside = (weights.parent / name for name in TOKENIZERS)
        found = next((path for path in beside if path.is_file()), None)
        usage |= {} if found is None else {"tokenizer": coders.LIBRARY, "file": str(found)}
    return Saved(model, params, state, usage)


def save(folder: str | os.PathLike, saved: Saved, *, conv_kernel: str = "torch") -> None:
    """Writes a folder that `from_pretrained` of Hugging Face's class loads.

    Each file appears whole or not at all. With learned positions or a
    convolutional stem their Perceivers do not compute what ours do, see `huggingface.config`.

    Args:
      folder: is made if it is not there.
      saved: the model and its weights.
      conv_kernel: layout of the 7x7 convolution. "torch": their class computes with it as it is;
        "hub": as in the hub's file, height and width swapped.

    Raises:
      ValueError: Hugging Face's class cannot be given this model's sizes.
    """
    folder = pathlib.Path(folder)
    spec = saved.model.spec
    contents = {"config.json": config_of(spec, saved.usage)}
    if spec.kind in specs.IMAGE_CLASSIFIERS:
        contents["preprocessor_config.json"] = preprocessor_config(spec, saved.usage)
    if spec.kind in ("masked_lm", "text_classifier"):
        contents["tokenizer_config.json"] = tokenizer_config(spec)
    tree = {**saved.params, **batch_norm.without_history(saved.state)}
    exported = translate_back(tree, rules(spec, conv_kernel))
    if saved.state:
        contents["config.json"][CONV_KERNEL] = conv_kernel
        exported[BATCHES] = np.asarray(batch_norm.counter(saved.state), np.int64)
    texts = {name: json.dumps(x, indent=2, ensure_ascii=False) for name, x in contents.items()}
    folder.mkdir(parents=True, exist_ok=True)
    tensors.write(folder / "model.safetensors", exported, {"format": "pt"})
    for name, text in texts.items():
        files.write(folder / name, text.encode())
    if saved.usage.get("tokenizer") == coders.LIBRARY:
        files.write(folder / TOKENIZERS[0], native.tokenizer_file(saved.usage)[1])


def arrays(path: str | os.PathLike) -> Arrays:
    """Returns the arrays of a folder or file of weights, by their names there, unread.

    What DistributedDataParallel, `torch.compile` and Lightning put before all names is taken off.
    """
    weights = find_weights(path)
    if not weights.name.endswith(".index.json"):
        return _unwrapped(_read_arrays(weights))
    index = _read_json(weights)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(x, str) for x in places.values()):
        raise ValueError(f"{weights}: broken file: it has no weight_map from names to files")
    shards = {
        shard: _read_arrays(files.beside(weights.parent, shard, links=True))
        for shard in sorted(set(places.values()))
    }
    missing = [f"{name} ({shard})" for name, shard in places.items() if name not in shards[shard]]
    if missing:
        raise ValueError(f"{weights}: shards lack what it lists: {', '.join(missing)}")
    return _unwrapped({name: shards[shard][name] for name, shard in places.items()})


def _unwrapped(stored: Arrays) -> Arrays:
    while stored:
        prefix = next((p for p in WRAPPERS if all(name.startswith(p) for name in stored)), None)
        if prefix is None:
            break
        stored = {name.removeprefix(prefix): x for name, x in stored.items()}
    return stored


def find_weights(path: str | os.PathLike) -> pathlib.Path:
    """Returns the file of the weights (or of their index) of a folder, or the file itself."""
    path = pathlib.Path(path)
    if path.is_file():
        return path
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path} has no weights file; expected one of {', '.join(WEIGHTS)}")


def _read_arrays(path: pathlib.Path) -> Arrays:
    return tensors.read(path) if path.suffix == ".safetensors" else torch_files.read(path)


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    return files.read_json(path) if path.is_file() else None


def _usage(
    spec: specs.Spec, config: Mapping[str, Any], processor: Mapping[str, Any]
) -> dict[str, Any]:
    named = config.get("id2label") or {}
    if not isinstance(named, Mapping) or not all(str(i).isdecimal() for i in named):
        raise ValueError(f"config.json: id2label={named!r} must map numbers to names"[:300])
    names = {int(i): label for i, label in named.items()}
    labels = [names.get(i) for i in range(getattr(spec, "classes", 0))]
    given = all(isinstance(label, str) for label in labels)
    real = given and any(label != f"LABEL_{i}" for i, label in enumerate(labels))
    result = usage.default(spec, labels if real else None)
    transformer = transformer_of(spec)
    if transformer is not None:
        result |= transformer.usage_of(spec, config)
    if spec.kind == "text_classifier":  # as PerceiverTokenizer, by default, prepares texts
        result["special_tokens"] = True
    if "image" in result:
        for name in ("mean", "std"):
            result["image"][name] = processor.get(f"image_{name}", result["image"][name])
        size, crop = (sides(processor.get(name)) for name in ("size", "crop_size"))
        if size and crop:  # a Perceiver's processor cuts out `crop`, and resizes that to `size`
            result["image"]["crop_fraction"] = size[0] / crop[0]
    return result

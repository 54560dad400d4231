"""The project's own format: a folder with `model.safetensors` and `config.json`.

The folder describes itself: `config.json` holds the model's spec and what is needed to use it
(labels, preprocessing), so `load` builds the model without any other file. The file of a
tokeniser is copied into it, as `tokenizer.model` or `tokenizer.json`.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from perceiver.kinds.models import Model, build
from perceiver.text import coders
from perceiver.text.vocabularies import Vocabulary
from perceiver.weights import files, tensors
from perceiver.weights.mapping import Params, flatten, unflatten
from perceiver.weights.stored import Arrays

FORMAT = 1
_STATE = "state:"  # prefix of network state (batch norm averages) beside the parameters


@dataclasses.dataclass(frozen=True)
class Saved:
    """A model with its weights."""

    model: Model
    params: Params
    state: Params
    usage: dict[str, Any]  # e.g. labels, preprocessing


def save(
    folder: str | os.PathLike, model: Model, params, state, usage: dict[str, Any] | None = None
) -> None:
    """Writes the folder; each file appears whole or not at all.

    Raises:
      FileNotFoundError: the tokeniser's file is no longer where `usage` says.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    usage = dict(usage or {})
    tokenizer = tokenizer_file(usage)
    if tokenizer is not None:
        usage["file"] = tokenizer[0]
    config = {"format": FORMAT, "model": model.spec.to_dict(), "usage": usage}
    text = json.dumps(config, indent=2, ensure_ascii=False)  # may fail, so before any file changes
    names = flatten(params) | {_STATE + key: x for key, x in flatten(state).items()}
    tensors.write(folder / "model.safetensors", names)
    if tokenizer is not None:
        files.write(folder / tokenizer[0], tokenizer[1])
    files.write(folder / "config.json", text.encode())


def tokenizer_file(usage: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """Returns name and content of the file of a model's tokeniser, for beside its weights."""
    if "file" not in usage:
        return None
    path = pathlib.Path(usage["file"])
    if usage.get("tokenizer") != coders.LIBRARY:
        return "tokenizer.model", path.read_bytes()
    return "tokenizer.json", Vocabulary(path).save() if path.suffix == ".txt" else path.read_bytes()


def is_native(config: Any) -> bool:
    """Whether a config.json is an exported model's."""
    return isinstance(config, dict) and {"format", "model", "usage"} <= config.keys()


def load(folder: str | os.PathLike) -> Saved:
    """Reads a folder that `save` wrote, array by array.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is broken, of a newer format, or the weights do not fit the spec.
    """
    folder = pathlib.Path(folder)
    stored = arrays(folder)
    try:
        config = files.read_json(folder / "config.json")
    except ValueError as error:
        raise ValueError(f"{error}; export the model again") from error
    if not is_native(config):
        raise ValueError(
            f"{folder}/config.json does not belong to an exported model: it needs format, model "
            "and usage"
        )
    if config["format"] != FORMAT:
        raise ValueError(f"{folder}/config.json has format {config['format']}, known: {FORMAT}")
    usage = config["usage"]
    if not isinstance(usage, dict):
        raise ValueError(f"{folder}/config.json: usage must be an object, not {usage!r}")
    try:
        model = build(config["model"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}/config.json: {error}") from error
    _check_fit(folder, model, stored)
    params = {k: x.read() for k, x in stored.items() if not k.startswith(_STATE)}
    state = {k[len(_STATE) :]: x.read() for k, x in stored.items() if k.startswith(_STATE)}
    if "file" in usage:
        usage["file"] = str(files.beside(folder, usage["file"]))
    return Saved(model, unflatten(params), unflatten(state), usage)


def arrays(folder: str | os.PathLike) -> Arrays:
    """Returns what a folder that `save` wrote holds, unread.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the file of the arrays is broken.
    """
    folder = pathlib.Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing; an exported model is a folder with config.json and "
                "model.safetensors (a training run writes one into WORKDIR/model)"
            )
    try:
        return tensors.read(folder / "model.safetensors")
    except ValueError as error:
        raise ValueError(f"{error}; export the model again") from error


def _check_fit(folder: pathlib.Path, model: Model, stored: Arrays) -> None:
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    names = flatten(params) | {_STATE + key: x for key, x in flatten(state).items()}
    want = {key: (x.shape, str(x.dtype)) for key, x in names.items()}
    have = {key: (x.shape, str(x.dtype)) for key, x in stored.items()}
    rows = [
        f"{key}: file {have.get(key)}, model {want.get(key)}"
        for key in sorted(have.keys() | want.keys())
        if have.get(key) != want.get(key)
    ]
    if rows:
        raise ValueError(
            f"{folder}: the weights do not fit config.json's model:\n  " + "\n  ".join(rows)
        )

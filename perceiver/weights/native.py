"""The project's own format: a folder with `model.safetensors` and `config.json`.

The folder describes itself: `config.json` holds the model's spec and what is needed to use it
(labels, preprocessing), so `load` builds the model without any other file.
"""

import dataclasses
import json
import os
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from perceiver.models import Model, build
from perceiver.weights.mapping import Params, flatten, unflatten

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
    """Writes the folder; each file appears whole or not at all."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = flatten(params) | {_STATE + key: x for key, x in flatten(state).items()}
    arrays = {key: np.asarray(x, order="C") for key, x in arrays.items()}
    config = {"format": FORMAT, "model": model.spec.to_dict(), "usage": usage or {}}
    text = json.dumps(config, indent=2, ensure_ascii=False)  # may fail, so before any file changes
    _write(folder / "model.safetensors", safetensors_numpy.save(arrays))
    _write(folder / "config.json", text.encode())


def load(folder: str | os.PathLike) -> Saved:
    """Reads a folder that `save` wrote.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is broken, of a newer format, or the weights do not fit the spec.
    """
    folder = pathlib.Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing; an exported model is a folder with config.json and "
                "model.safetensors (a training run writes one into WORKDIR/model)"
            )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        arrays = safetensors_numpy.load_file(folder / "model.safetensors")
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"{folder}: broken file: {error}; export the model again") from error
    if not isinstance(config, dict) or not {"format", "model", "usage"} <= config.keys():
        raise ValueError(
            f"{folder}/config.json is not an exported model's: it needs format, model and usage"
        )
    if config["format"] != FORMAT:
        raise ValueError(f"{folder}/config.json has format {config['format']}, known: {FORMAT}")
    model = build(config["model"])
    params = unflatten({k: x for k, x in arrays.items() if not k.startswith(_STATE)})
    state = unflatten({k[len(_STATE) :]: x for k, x in arrays.items() if k.startswith(_STATE)})
    _check_fit(folder, model, params, state)
    return Saved(model, params, state, config["usage"])


def _check_fit(folder: pathlib.Path, model: Model, params: Params, state: Params) -> None:
    wanted = jax.eval_shape(model.init, jax.random.key(0))
    shapes = [{k: (x.shape, str(x.dtype)) for k, x in flatten(t).items()} for t in wanted]
    found = [{k: (x.shape, str(x.dtype)) for k, x in flatten(t).items()} for t in (params, state)]
    if found == shapes:
        return
    rows = [
        f"{key}: file {have.get(key)}, model {want.get(key)}"
        for have, want in zip(found, shapes, strict=True)
        for key in sorted(have.keys() | want.keys())
        if have.get(key) != want.get(key)
    ]
    raise ValueError(
        f"{folder}: the weights do not fit config.json's model:\n  " + "\n  ".join(rows)
    )


def _write(path: pathlib.Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        temporary = pathlib.Path(file.name)
        try:
            file.write(data)
            file.flush()
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

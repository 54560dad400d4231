"""DeepMind's released checkpoints: pickled parameters of Haiku 0.0.4.

A file holds {module: {name: array}}, or a dict with that as `params` and batch norm's averages as
`state`. It says nothing of heads, blocks, or the size of images, so the spec is that of the
released model whose arrays have the same names and shapes; for any other it must be given.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

from perceiver.kinds import released, specs, usage
from perceiver.kinds.models import build
from perceiver.weights import batch_norm
from perceiver.weights.deepmind import pickles
from perceiver.weights.deepmind.names import rules
from perceiver.weights.fill import differences, fill
from perceiver.weights.mapping import flatten
from perceiver.weights.native import Saved
from perceiver.weights.stored import Arrays, StoredArray

logger = logging.getLogger(__name__)

# Names that only these released models have; the first that is found decides.
_TELLING = {
    "embed/embeddings": ("masked-lm-bytes", "masked-lm-bytes-plus"),
    "flow_decoder/~/basic_decoder/output/w": ("optical-flow",),
    "multimodal_decoder/~/basic_decoder/output/w": ("video-autoencoder",),
    "image_preprocessor/~/conv2_d_downsample/~/conv/w": ("imagenet-conv",),
    "image_preprocessor/~/conv2_d/w": ("imagenet-learned",),
    "classification_decoder/~/basic_decoder/output/w": ("imagenet-fourier",),
}
_SHOWN = 5  # differences from the released model, in an error


def read(path: str | os.PathLike, *, spec: Mapping[str, Any] | specs.Spec | None = None) -> Saved:
    """Reads a checkpoint array by array, and runs nothing of it.

    Args:
      path: the file.
      spec: of the model; None: the released model that its names and shapes are.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is unsafe or broken (see `pickles`), it is none of the released models and no
        spec is given, or it does not fit the spec.
    """
    stored = arrays(path)
    steps = _steps(stored)
    model = build(spec_of(stored, path) if spec is None else spec)
    table = rules(model.spec, history=steps is None)
    params, state = fill(model, stored, table, steps=steps)
    return Saved(model, params, state, usage.default(model.spec))


def arrays(path: str | os.PathLike) -> Arrays:
    """Returns the arrays of a checkpoint, parameters and state, by "module/name", unread."""
    content = pickles.read(path)
    parts = [content]
    if isinstance(content.get("params"), Mapping):
        parts = [content["params"], content.get("state") or {}]
        others = sorted(content.keys() - {"params", "state"})
        if others:
            logger.info("%s: ignored, as they are not weights: %s", path, ", ".join(others))
    collected: dict[str, StoredArray] = {}
    for part in parts:
        if not isinstance(part, Mapping):
            raise ValueError(f"{path}: state is {_describe(part)}, not a mapping of modules")
        for module, leaves in part.items():
            if not isinstance(leaves, Mapping):
                raise ValueError(
                    f"{path}: {module!r} is {_describe(leaves)}, not a module of arrays"
                )
            for name, x in leaves.items():
                if not isinstance(x, StoredArray):
                    raise ValueError(f"{path}: {module}/{name} is {_describe(x)}, not an array")
        flat = flatten(part)
        if len(flat) != sum(map(len, part.values())) or flat.keys() & collected.keys():
            raise ValueError(f"{path}: two of its arrays have the same path, module/name")
        collected |= flat
    return collected


def _describe(x: Any) -> str:
    return "an array" if isinstance(x, StoredArray) else f"of type {type(x).__name__}"


def _steps(stored: Arrays) -> int | None:
    return None if batch_norm.has_history(stored) else batch_norm.SETTLED


def spec_of(stored: Arrays, path: str | os.PathLike) -> Mapping[str, Any]:
    """Returns the spec of the released model that a file's arrays are; reads none of them.

    Raises:
      ValueError: they are none of these; says how they differ.
    """
    candidates = next((models for name, models in _TELLING.items() if name in stored), ())
    if not candidates:
        modules = sorted({name.split("/")[0] for name in stored})
        raise ValueError(
            f"{path} holds none of DeepMind's Perceiver IO models: its modules are "
            f"{', '.join(modules[:9]) or 'none'}"
        )
    steps = _steps(stored)
    for name in candidates:
        model = build(released.MODELS[name])
        table = rules(model.spec, history=steps is None)
        rows = differences(model, stored, table, steps=steps)
        if not rows:
            return released.MODELS[name]
    more = f"\n  ... and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    raise ValueError(
        f"{path} is a model like {' or '.join(candidates)}, but not of the released size: "
        f"{_inferred(stored)}. Heads, blocks and the shape of inputs are not in the file: give "
        f"spec=..., a dict as in perceiver.kinds.released. It differs from {name} in\n  "
        + "\n  ".join(rows[:_SHOWN])
        + more
    )


def _inferred(stored: Arrays) -> str:
    """What the shapes say of a model's size."""
    scope = "encoder" if "encoder/~/cross_attention/mlp/linear/w" in stored else "perceiver_encoder"
    layers = sum(
        name.startswith(f"{scope}/~/self_attention") and name.endswith("/mlp/linear/w")
        for name in stored
    )
    parts = [f"layers={layers}"]
    latents = stored.get(f"{scope}/~/trainable_position_encoding/pos_embs")
    if latents is not None and len(latents.shape) == 2:
        parts += [f"latents={latents.shape[0]}", f"latent_channels={latents.shape[1]}"]
    keys = stored.get(f"{scope}/~/cross_attention/attention/linear_1/w")
    if keys is not None and len(keys.shape) == 2:
        parts += [f"byte array of {keys.shape[0]} channels", f"cross_qk_channels={keys.shape[1]}"]
    return ", ".join(parts)

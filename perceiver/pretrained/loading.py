"""`perceiver.load`: any weights in, a `Pretrained` out."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax

from perceiver.kinds import released, specs, usage
from perceiver.kinds.models import build
from perceiver.pretrained.pretrained import Pretrained
from perceiver.weights import formats, hub, native

# Fields of a spec that change how a model computes, not what its parameters are.
COMPUTE = (
    "activation",
    "kernel",
    "kernel_features",
    "kernel_redraw",
    "operands",
    "cross_path",
    "decode_path",
    "chunk",
    "remat",
    "dtype",
)


def load(
    source: str | os.PathLike,
    *,
    spec: str | Mapping[str, Any] | specs.Spec | None = None,
    image_size: tuple[int, int] | int | None = None,
    conv_kernel: str | None = None,
    batch_size: int = 16,
    **compute: Any,
) -> Pretrained:
    """Loads a model with its weights.

    Args:
      source: a local file or folder: a run of `python -m train`, an exported model, a DeepMind
        pickle, a Hugging Face folder. Or a released model's name, fetched once where there is a
        network: `deepmind/language-perceiver`, `imagenet-fourier`, ...
        (`perceiver.weights.hub.MODELS`).
      spec: what the model is, or its name in `released.MODELS`; for files that do not say it
        themselves and are not of a released model's size.
      image_size: (height, width) or a side: another size than the model was trained at, see
        `Pretrained.resized`.
      conv_kernel: "hub" or "torch": how a Hugging Face file holds the kernel of the convolutional
        model, see `perceiver.weights.huggingface`. None: as the file says, else "hub".
      batch_size: examples on the device at a time.
      compute: fields of the spec that change how it computes: kernel, operands="bfloat16",
        cross_path, decode_path, chunk, remat, dtype; activation="gelu_erf" for a model that was
        trained in PyTorch (the released weights want the default, wherever they are read from).

    Raises:
      FileNotFoundError: there is no such file or released model.
      ImportError, ConnectionError: a name that cannot be fetched; says what to do.
      ValueError: a file that is broken, unsafe, or does not fit its model; lists what does not.
      TypeError: an unknown argument.
    """
    for name in compute:
        if name not in COMPUTE:
            raise TypeError(
                f"load has no argument {name!r}; it accepts these fields of the spec: {COMPUTE}"
            )
    saved = read(source, spec=spec, conv_kernel=conv_kernel)
    model = saved.model
    if compute:
        model = build(dataclasses.replace(model.spec, **compute))
    pretrained = Pretrained(
        model=model,
        params=_to_device(saved.params),
        state=_to_device(saved.state),
        usage=saved.usage,
        source=str(source),
        batch_size=batch_size,
    )
    if image_size is None:
        return pretrained
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return pretrained.resized(height, width)


def fresh(
    spec: str | Mapping[str, Any] | specs.Spec, *, seed: int = 0, batch_size: int = 16
) -> Pretrained:
    """Returns a model with untrained weights, to try things or to start from.

    Args:
      spec: what the model is, or its name in `released.MODELS`.
      seed: of the weights.
      batch_size: examples on the device at a time.
    """
    model = build(_spec(spec))
    params, state = jax.jit(model.init)(jax.random.key(seed))
    return Pretrained(
        model=model,
        params=params,
        state=state,
        usage=usage.default(model.spec),
        source=f"an untrained {model.spec.kind} (seed {seed})",
        batch_size=batch_size,
    )


def read(
    source: str | os.PathLike,
    *,
    spec: str | Mapping[str, Any] | specs.Spec | None = None,
    conv_kernel: str | None = None,
) -> native.Saved:
    """Returns a source's model with its weights on the host; arguments and errors are `load`'s."""
    spec = None if spec is None else _spec(spec)
    return formats.load(hub.locate(source), spec=spec, conv_kernel=conv_kernel)


def _spec(spec: str | Mapping[str, Any] | specs.Spec) -> Mapping[str, Any] | specs.Spec:
    if not isinstance(spec, str):
        return spec
    if spec not in released.MODELS:
        raise ValueError(f"spec={spec!r} is unknown; released models: {', '.join(released.MODELS)}")
    return released.MODELS[spec]


def _to_device(tree: dict[str, dict[str, Any]]) -> dict[str, dict[str, jax.Array]]:
    """Moves arrays one by one, so that host and device never hold all of them at once."""
    placed: dict[str, dict[str, jax.Array]] = {}
    for module in list(tree):
        leaves = tree.pop(module)
        placed[module] = {}
        for name in list(leaves):
            # Waiting frees the host's copy before the next one is moved.
            placed[module][name] = jax.block_until_ready(jax.device_put(leaves.pop(name)))
    return placed

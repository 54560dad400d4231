"""What a model consists of and costs, as one dict of plain values: no array is ever made."""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from perceiver.kinds import specs
from perceiver.kinds.builders import KINDS
from perceiver.kinds.models import Model, build
from perceiver.model.processor import is_stacked
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.summary import flops

_ORDER = (
    "inputs",
    "embedding",
    "latents",
    "project",
    "encoder",
    "processor",
    "norm",
    "resnet",
    "outputs",
)


def summarize(
    spec: Mapping[str, Any] | specs.Spec,
    *,
    batch_size: int = 1,
    depth: int = 3,
    compile_forward: bool = False,
) -> dict[str, Any]:
    """Returns a model's summary, ready for JSON.

    Args:
      spec: of the model.
      batch_size: B, for memory and outputs; FLOPs and parameters do not depend on it.
      depth: components of a module's path after which parameters are added up.
      compile_forward: also compile the forward pass for the default device, and report XLA's own
        figures (seconds to minutes).

    Raises:
      ValueError: the spec is wrong, or a number is not positive.
    """
    for name, value in (("batch_size", batch_size), ("depth", depth)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    model = build(spec)
    params, state = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    inputs = model.example_inputs(batch_size)
    forward = jax.jit(lambda *args: model.apply(args[0], args[1], None, args[2])[0])
    array = byte_array_shapes(model, inputs)
    return {
        "spec": model.spec.to_dict(),
        "batch_size": batch_size,
        "inputs": {name: _array(x) for name, x in inputs.items()},
        "byte_array": _byte_array(array),
        **_latents(model.spec),
        "paths": {name: str(plan) for name, plan in model.explain(batch_size).items()},
        "outputs": _outputs(jax.eval_shape(forward, params, state, inputs)),
        "parameters": {
            "total": _size(params),
            "modules": [_module(*group) for group in _group(params, depth)],
            "state": _size(state),
        },
        "flops": _flops(model.spec, batch_size),
        "memory": _memory(model.spec, _size(params), array, batch_size),
        "compiled": _compiled(forward, params, state, inputs) if compile_forward else None,
    }


def byte_array_shapes(model: Model, inputs: Mapping[str, Any] | None = None) -> ByteArray:
    """Returns the byte array of inputs (None: of one example) with shapes in place of arrays."""

    def preprocess(inputs, is_training):
        return KINDS[model.spec.kind].parts(model.spec).preprocess(inputs, is_training=is_training)

    transformed = hk.transform_with_state(preprocess)

    def run(inputs):
        params, state = transformed.init(jax.random.key(0), inputs, True)
        return transformed.apply(params, state, None, inputs, False)[0]

    return jax.eval_shape(run, model.example_inputs(1) if inputs is None else inputs)


def _latents(spec: specs.Spec) -> dict[str, Any]:
    """Returns the latents and the stages that read the inputs; None and [] without latents."""
    if not spec.has_latents:
        return {"latents": None, "stages": []}
    stages = [{"encoder": encoder, "processor": body} for encoder, body in spec.sharing.stages]
    return {"latents": {"size": spec.latents, "channels": spec.latent_channels}, "stages": stages}


def _outputs(x: jax.ShapeDtypeStruct | Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Any]:
    """Returns an array, or several by their names."""
    return {name: _array(y) for name, y in x.items()} if isinstance(x, Mapping) else _array(x)


def _array(x: jax.ShapeDtypeStruct) -> dict[str, Any]:
    return {"shape": list(x.shape), "dtype": str(x.dtype)}


def _size(tree) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _byte_array(array: ByteArray) -> dict[str, Any]:
    return {
        "size": array.size,
        "channels": array.channels,
        "segments": [_segment(segment) for segment in array.segments],
    }


def _segment(segment: Segment) -> dict[str, Any]:
    positions = segment.positions
    return {
        "name": segment.name,
        "dims": list(segment.dims),
        "content_channels": segment.content.shape[-1],
        "positions": None if positions is None else type(positions).__name__,
        "position_channels": 0 if positions is None else positions.channels,
        "constant_channels": 0 if segment.constant is None else segment.constant.shape[0],
        "masked": segment.mask is not None,
    }


def _group(params, depth: int) -> list[tuple[str, dict[str, Any]]]:
    """Returns (path prefix, modules) in the order in which data flows through them."""

    def prefix(path: str) -> str:
        return "/".join(path.split("/")[:depth])

    def place(path: str) -> tuple[int, int]:
        word, number = re.fullmatch(r"(.+?)(?:_(\d+))?", path.split("/")[0]).groups()
        return _ORDER.index(word) if word in _ORDER else len(_ORDER), int(number or 0)

    paths = sorted(params, key=lambda path: (*place(path), path))
    return [
        (name, {path: params[path] for path in group})
        for name, group in itertools.groupby(paths, key=prefix)
    ]


def _module(name: str, modules: dict[str, Any]) -> dict[str, Any]:
    """Sums up the modules below a path prefix; `matrices` are one layer's in a stack of layers."""
    layers, matrices = None, {}
    for path, arrays in modules.items():
        for leaf, x in arrays.items():
            if is_stacked(path):
                layers = x.shape[0]
            if leaf in ("w", "table"):
                shape = x.shape[1:] if is_stacked(path) else x.shape
                matrices[f"{path}/{leaf}".removeprefix(f"{name}/")] = list(shape)
    return {"path": name, "parameters": _size(modules), "layers": layers, "matrices": matrices}


def _flops(spec: specs.Spec, batch_size: int) -> dict[str, Any]:
    rows = flops.forward(spec)
    return {
        "per_example": flops.per_example(rows),
        "batch": flops.total(rows, batch_size),
        "rows": [dataclasses.asdict(row) | {"flops": row.flops} for row in rows],
    }


def _memory(spec: specs.Spec, parameters: int, array: ByteArray, batch_size: int) -> dict[str, int]:
    """Returns bytes. Parameters, gradients and moments are float32 whatever the compute dtype."""
    byte_array = array.size * array.channels * jnp.dtype(spec.dtype).itemsize
    float32 = jnp.dtype(jnp.float32).itemsize
    parameter_bytes = parameters * float32
    sizes = {"byte_array": byte_array}
    if spec.has_latents:
        logits = spec.cross_heads * spec.latents * array.size * float32
        sizes["cross_attention_logits"] = logits
    heads = getattr(spec, "heads" if isinstance(spec, specs.Transformer) else "self_heads", 0)
    if heads and not spec.has_latents:
        sizes["self_attention_logits"] = heads * array.size**2 * float32
    return {
        "parameters": parameter_bytes,
        "gradients": parameter_bytes,
        "optimizer_state": 2 * parameter_bytes,
        **{f"{name}_per_example": size for name, size in sizes.items()},
        **{f"{name}_batch": size * batch_size for name, size in sizes.items()},
    }


def _compiled(forward, params, state, inputs) -> dict[str, Any]:
    analysis = forward.lower(params, state, inputs).compile().memory_analysis()
    return {
        "platform": jax.default_backend(),
        "argument_bytes": analysis.argument_size_in_bytes,
        "output_bytes": analysis.output_size_in_bytes,
        "temp_bytes": analysis.temp_size_in_bytes,
        "code_bytes": analysis.generated_code_size_in_bytes,
    }

"""The parts of a model of optical flow."""

import jax
import jax.numpy as jnp

from perceiver.inputs.flow import FlowInputs
from perceiver.kinds import specs
from perceiver.kinds.builders.parts import Inputs, Kind, Parts, backbone
from perceiver.outputs.flow import FlowHead


def _parts(spec: specs.OpticalFlow) -> Parts:
    inputs = FlowInputs(
        patch_size=spec.patch_size,
        patch_channels=spec.patch_channels,
        bands=spec.bands,
        max_resolution=spec.resolution,
        name="inputs",
    )
    head = FlowHead(
        heads=spec.query_heads,
        qk_channels=spec.query_qk_channels or None,
        v_channels=spec.query_v_channels or None,
        query_residual=spec.query_residual,
        scale=spec.output_scale,
        activation=spec.activation,
        compute=spec.decode_compute,
        name="outputs",
    )
    return Parts(
        preprocess=lambda x, *, is_training: inputs(x["frames"]),
        body=backbone(spec, head),
        head=head,
        options=lambda x, byte_array: {"pixels": byte_array()},
    )


def _example(spec: specs.OpticalFlow, batch_size: int):
    shape = (batch_size, 2, *spec.frame_shape)
    return {"frames": jax.ShapeDtypeStruct(shape, jnp.float32)}


def _check(spec: specs.OpticalFlow, inputs: Inputs) -> None:
    if "frames" not in inputs:
        raise ValueError(f"optical_flow needs 'frames', got {sorted(inputs)}")
    shape, dtype = inputs["frames"].shape, inputs["frames"].dtype
    if len(shape) != 5 or shape[1] != 2 or shape[-1] != spec.frame_shape[-1]:
        raise ValueError(
            f"frames must be [batch, 2, {', '.join(map(str, spec.frame_shape))}], got {shape}"
        )
    if shape[2:4] != spec.frame_shape[:2]:
        raise ValueError(
            f"frames of {shape[2]}x{shape[3]} pixels, but the model takes "
            f"{spec.frame_shape[0]}x{spec.frame_shape[1]}; use `perceiver.media.tiles.tiled`"
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"frames must be floating-point in [-1, 1], got {dtype}; scale them")


KIND = Kind(_parts, _example, _check, _check)

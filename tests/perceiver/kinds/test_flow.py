"""Optical flow: patches without an array of patches, queries that are the inputs, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver
from perceiver.inputs.flow import FlowInputs

TOLERANCE = 1e-5  # of the largest magnitude
B = 2


@pytest.fixture
def frames(rng):
    return rng.uniform(-1, 1, (B, 2, 5, 7, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_content_is_both_frames_neighbourhoods_projected(size, frames, run):
    def content(frames):
        inputs = FlowInputs(
            patch_size=size, patch_channels=11, bands=2, max_resolution=(5, 7), name="inputs"
        )
        return inputs(frames).segments[0].content

    actual, params = run(content, frames)
    margin = size // 2
    padded = np.pad(frames, ((0, 0), (0, 0), (margin, margin), (margin, margin), (0, 0)))
    values = [  # in the order of the released weights: frame, row, column, channel
        padded[:, frame, i : i + 5, j : j + 7]
        for frame in range(2)
        for i in range(size)
        for j in range(size)
    ]
    w, b = params["inputs/project"]["w"], params["inputs/project"]["b"]
    assert w.shape == (2 * size * size * 3, 11)
    expected = np.concatenate(values, axis=-1) @ w + b
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE * np.abs(expected).max())


def test_no_array_of_patches_is_made(flow_spec):
    model = perceiver.build(flow_spec | {"frame_shape": (64, 96, 3)})
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda p, x: model.apply(p, {}, None, x)[0])(
        params, model.example_inputs(1)
    )
    assert any(e.primitive.name == "conv_general_dilated" for e in jaxpr.eqns)
    assert all(v.aval.size < 64 * 96 * 54 for e in jaxpr.eqns for v in e.outvars)


def test_the_flow_starts_at_zero(flow_spec, frames, key):
    model = perceiver.build(flow_spec)
    params, state = jax.jit(model.init)(key)
    flow, _ = jax.jit(model.apply)(params, state, None, {"frames": frames})
    np.testing.assert_array_equal(flow, np.zeros((B, 5, 7, 2)))


def test_the_output_is_scaled(flow_spec, frames, draw_params):
    flows = []
    for scale in (0.01, 1.0):
        model = perceiver.build(flow_spec | {"output_scale": scale})
        params = draw_params(model.init)
        flows.append(jax.jit(model.apply)(params, {}, None, {"frames": frames})[0])
    np.testing.assert_allclose(100 * flows[0], flows[1], rtol=1e-5)


@pytest.mark.parametrize("path", ["streaming", "shared", "separable"])
def test_values_and_gradients_equal_the_dense_form(path, flow_spec, frames, draw_params, rng):
    weights = jnp.asarray(rng.random((B, 5, 7, 2)), jnp.float32)

    def gradients(path):
        paths = {"cross_path": path, "decode_path": path, "chunk": 14}
        model = perceiver.build(flow_spec | {"query_residual": True} | paths)
        params = draw_params(model.init)

        def loss(params, frames):
            flow = model.apply(params, {}, None, {"frames": frames})[0]
            return (flow * weights).sum(), flow

        (of_params, of_frames), flow = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(
            params, frames
        )
        return {"flow": flow, "frames": of_frames, "w": of_params["inputs/project"]["w"]}

    actual, expected = gradients(path), gradients("plain")
    for name, x in expected.items():
        np.testing.assert_allclose(actual[name], x, atol=TOLERANCE * np.abs(x).max(), err_msg=name)


def test_decoding_in_pieces_equals_at_once(flow_spec, frames, draw_params):
    model = perceiver.build(flow_spec | {"decode_path": "separable", "chunk": 14})
    params, inputs = draw_params(model.init), {"frames": frames}
    expected, _ = jax.jit(model.apply)(params, {}, None, inputs)
    latents = model.encode(params, {}, inputs)
    queries, decode = model.queries(params, {}, latents, inputs), jax.jit(model.decode_queries)
    rows = perceiver.decode_to_host(
        lambda piece: decode(params, {}, latents, {"flow": piece})["flow"],
        queries["flow"],
        at_once=14,
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(rows.reshape(expected.shape), expected, atol=TOLERANCE * scale)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (B, 2, 6, 7, 3),
            "frames of 6x7 pixels, but the model takes 5x7; use `perceiver.media.tiles",
        ),
        ((B, 2, 5, 7, 1), r"frames must be \[batch, 2, 5, 7, 3\]"),
        ((B, 3, 5, 7, 3), r"frames must be \[batch, 2, 5, 7, 3\]"),
        ((B, 5, 7, 3), r"got \(2, 5, 7, 3\)"),
    ],
)
def test_frames_of_another_shape_are_refused(flow_spec, shape, message):
    model = perceiver.build(flow_spec)
    with pytest.raises(ValueError, match=message):
        model.check({"frames": np.zeros(shape, np.float32)})


def test_frames_must_be_scaled(flow_spec, frames):
    model = perceiver.build(flow_spec)
    with pytest.raises(ValueError, match=r"floating-point in \[-1, 1\], got uint8"):
        model.check({"frames": frames.astype(np.uint8)})

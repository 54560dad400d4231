"""Video, sound and a label against a dense form written from the conventions, and its options."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver
from perceiver.cross_attention import plan
from perceiver.cross_attention.queries import query_plan
from perceiver.kinds import specs
from perceiver.kinds.builders import KINDS
from perceiver.kinds.released import MODELS

TOLERANCE = 1e-5  # of the largest magnitude
# What queries get is what softmaxes of nearly equal weights leave of larger terms.
GRADIENT_TOLERANCE = 3e-5
BF16_TOLERANCE = 20 * 2.0**-9  # some 20 arrays are rounded one after the other
B = 2
IDS = {"video_queries": np.array([479, 0, 7, 33, 33, 250]), "audio_queries": np.array([6, 2, 0])}


def dense_model(params, spec, inputs):
    """The whole model with byte array and queries concatenated: float32, plain softmax."""

    def linear(x, path):
        return x @ params[path]["w"] + params[path]["b"][None, None]

    def norm(x, path):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
        return x * params[path]["scale"][None, None] + params[path]["offset"][None, None]

    def attend(x, y, path, heads):
        def split(z):
            return z.reshape(*z.shape[:2], heads, -1)

        q, k, v = (
            split(linear(z, f"{path}/{name}"))
            for z, name in ((x, "query"), (y, "key"), (y, "value"))
        )
        weights = jax.nn.softmax(jnp.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(q.shape[-1]))
        y = jnp.einsum("bhqk,bkhv->bqhv", weights, v)
        return linear(y.reshape(*y.shape[:2], -1), f"{path}/out")

    def feed_forward(x, path):
        y = linear(norm(x, f"{path}/norm"), f"{path}/mlp/hidden")
        return x + linear(jax.nn.gelu(y, approximate=True), f"{path}/mlp/out")

    def cross_attend(x, y, path, residual):
        read = attend(
            norm(x, f"{path}/attend/norm"),
            norm(y, f"{path}/attend/norm_inputs"),
            f"{path}/attend/attention",
            heads=1,
        )
        return feed_forward(x + read if residual else read, f"{path}/feed_forward")

    def fourier(points, bands, resolutions):  # [n, d] -> [n, d (2 K + 1)]
        angles = [
            points[:, i, None] * np.linspace(1, r / 2, bands)[None] * np.pi
            for i, r in enumerate(resolutions)
        ]
        features = [points, *map(np.sin, angles), *map(np.cos, angles)]
        return np.concatenate(features, axis=1).astype(np.float32)

    def padded(modality, parts, side):
        shape = (B, parts[-1].shape[-2])
        parts = [jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in parts]
        padding = params[f"{side}/{modality}/padding"]["table"][None]
        return jnp.concatenate([*parts, jnp.broadcast_to(padding, (*shape, padding.shape[2]))], -1)

    def grid(dims, last):
        axes = [np.linspace(-1, 1 if last else 1 - 2 / n, n) for n in dims]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(dims))

    def points(ids, dims):
        if ids is None:
            return grid(dims, last=False)
        return -1 + 2 * np.stack(np.unravel_index(ids, dims), axis=-1) / np.array(dims)[None]

    time, height, width, _ = spec["video_shape"]
    patches, side = (time, height // 4, width // 4), spec["samples_per_patch"]
    elements = [inputs["video"][:, :, i::4, j::4] for i in range(4) for j in range(4)]
    pixels = jnp.concatenate(elements, axis=-1).reshape(B, np.prod(patches), -1)
    audio = inputs["audio"].reshape(B, -1, side)
    video_positions = fourier(grid(patches, last=True), spec["video_bands"], patches)
    sound = (audio.shape[1],)
    audio_positions = fourier(grid(sound, last=True), spec["audio_bands"], (spec["samples"],))
    if inputs.get("label") is None:
        token = params["inputs/label/mask_token"]["table"][None]
        label = jnp.broadcast_to(token, (B, *token.shape[1:]))
    else:
        label = padded("label", [inputs["label"][:, None]], "inputs")
    byte_array = jnp.concatenate(
        [
            padded("audio", [audio, audio_positions], "inputs"),
            padded("video", [pixels, video_positions], "inputs"),
            label,
        ],
        axis=1,
    )
    latents = params["latents"]["table"][None]
    latents = jnp.broadcast_to(latents, (B, *latents.shape[1:]))
    latents = cross_attend(latents, byte_array, "encoder/cross_attend", residual=True)
    stack = "processor/layers/self_attend"
    for layer in range(spec["layers"]):
        params = params | {
            f"layer/{path}": {name: x[layer] for name, x in leaves.items()}
            for path, leaves in params.items()
            if path.startswith(stack)
        }
        y = norm(latents, f"layer/{stack}/attend/norm")
        latents = latents + attend(y, y, f"layer/{stack}/attend/attention", spec["self_heads"])
        latents = feed_forward(latents, f"layer/{stack}/feed_forward")

    dims = spec["video_shape"][:3]
    asked = {
        "audio": fourier(
            points(inputs.get("audio_queries"), sound), spec["audio_bands"], (spec["samples"],)
        ),
        "video": fourier(points(inputs.get("video_queries"), dims), spec["video_bands"], patches),
        "label": params["outputs/label/queries"]["table"],
    }
    queries = {name: padded(name, [x], "outputs") for name, x in asked.items()}
    together = jnp.concatenate(list(queries.values()), axis=1)
    y = cross_attend(together, latents, "outputs/decoder/cross_attend", residual=False)
    y = linear(y, "outputs/decoder/out")
    ends = np.cumsum([x.shape[1] for x in queries.values()])[:-1]
    audio, video, label = (
        linear(part, f"outputs/{name}/project")
        for name, part in zip(queries, jnp.split(y, ends, axis=1), strict=True)
    )
    if inputs.get("video_queries") is None:
        video = video.reshape(B, *spec["video_shape"])
    return {"video": video, "audio": audio.reshape(B, -1), "label": label[:, 0]}


@pytest.fixture
def inputs(rng):
    return {
        "video": rng.random((B, 3, 8, 20, 3), np.float32),
        "audio": rng.uniform(-1, 1, (B, 28)).astype(np.float32),
        "label": np.eye(11, dtype=np.float32)[[3, 8]],
    }


def assert_near(actual, expected, tolerance=TOLERANCE):
    def check(path, x, y):
        assert x.shape == y.shape
        error, scale = np.abs(x - y).max(), np.abs(y).max()
        assert error <= tolerance * scale, f"{jax.tree_util.keystr(path)}: {error} of {scale}"

    jax.tree_util.tree_map_with_path(check, dict(actual), dict(expected))


@pytest.fixture
def by_segment(monkeypatch):
    """Tiny models take the paths of large ones: each segment its own."""
    monkeypatch.setattr(plan, "FEW_WEIGHTS", 0)
    monkeypatch.setattr(query_plan, "FEW_SCORES", 0)


def tree_of_gradients(apply, params, inputs, options):
    """Returns (gradients of parameters and inputs, outputs)."""
    shapes = jax.eval_shape(lambda p, x: apply(p, x | options), params, inputs)
    # of one sign, lest sums over all outputs cancel to rounding noise
    draw = np.random.default_rng(3)
    weights = {k: draw.random(x.shape, np.float32) for k, x in sorted(shapes.items())}

    def loss(params, inputs):
        y = apply(params, inputs | options)
        return sum((y[k] * weights[k]).mean() for k in y), y

    (of_params, of_inputs), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(
        params, inputs
    )
    for path, leaves in of_params.items():
        if path.endswith("/key"):
            del leaves["b"]  # no softmax sees it: in the dense form, rounding noise
    return {"parameters": of_params, "inputs": of_inputs, "outputs": y}


def test_values_and_gradients_equal_the_dense_form(video_spec, inputs, draw_params, by_segment):
    spec = video_spec | {"layers": 1}
    params = draw_params(perceiver.build(spec).init)
    dense = tree_of_gradients(lambda p, x: dense_model(p, spec, x), params, inputs, IDS)
    outputs = dense.pop("outputs")
    for path in ("auto", "streaming"):
        model = perceiver.build(spec | {"cross_path": path, "decode_path": path, "chunk": 16})
        if path == "auto":
            plans = model.explain()
            choices = [choice.path for choice in plans["stage 1"].choices]
            assert choices == ["separable", "separable", "shared"]
            assert plans["decoder video"].choices[0].path == "separable"
        ours = tree_of_gradients(
            lambda p, x, model=model: model.apply(p, {}, None, x)[0], params, inputs, IDS
        )
        # what is never used has no gradient
        for name in ("audio", "label"):
            assert not np.any(ours["parameters"][f"inputs/{name}/mask_token"]["table"])
        assert_near(ours.pop("outputs"), outputs)
        assert_near(ours, dense, GRADIENT_TOLERANCE)


@pytest.mark.parametrize("path", ["plain", "auto"])
def test_without_a_label_all_outputs_equal_the_dense_form(
    path, video_spec, inputs, draw_params, by_segment
):
    del inputs["label"]
    model = perceiver.build(video_spec | {"cross_path": path, "decode_path": path, "chunk": 16})
    params = draw_params(model.init)
    expected = jax.jit(lambda p, x: dense_model(p, video_spec, x))(params, inputs)
    found = jax.jit(lambda p, x: model.apply(p, {}, None, x)[0])(params, inputs)
    assert_near(found, expected)


def test_some_outputs_are_those_of_all(video_spec, inputs, draw_params):
    model = perceiver.build(video_spec)
    params = draw_params(model.init)
    everything, _ = jax.jit(model.apply)(params, {}, None, inputs)
    some, _ = jax.jit(model.apply)(params, {}, None, inputs | IDS)
    chosen = {
        "video": everything["video"].reshape(B, -1, 3)[:, IDS["video_queries"]],
        "audio": everything["audio"].reshape(B, 7, 4)[:, IDS["audio_queries"]].reshape(B, -1),
        "label": everything["label"],
    }
    assert_near(some, chosen)


def test_encoding_once_and_decoding_in_pieces_equals_at_once(
    video_spec, inputs, draw_params, by_segment
):
    model = perceiver.build(video_spec | {"chunk": 16})
    params = draw_params(model.init)
    expected, _ = jax.jit(model.apply)(params, {}, None, inputs)
    latents = jax.jit(model.encode)(params, {}, inputs)
    assert_near(jax.jit(model.decode)(params, {}, latents, {}), expected)
    queries, decode = model.queries(params, {}, latents, {}), jax.jit(model.decode_queries)
    found = {
        name: perceiver.decode_to_host(
            lambda piece, name=name: decode(params, {}, latents, {name: piece})[name],
            array,
            at_once=170,  # a frame, and all of the sound
        ).reshape(expected[name].shape)
        for name, array in queries.items()
    }
    assert_near(found, expected)


def test_bfloat16_rounds_and_outputs_stay_float32(video_spec, inputs, draw_params, by_segment):
    full, half = (perceiver.build(video_spec | {"dtype": d}) for d in ("float32", "bfloat16"))
    params = draw_params(full.init)
    expected, _ = jax.jit(full.apply)(params, {}, None, inputs)
    outputs, _ = jax.jit(half.apply)(params, {}, None, inputs)
    assert {x.dtype for x in outputs.values()} == {np.dtype(np.float32)}
    assert_near(outputs, expected, BF16_TOLERANCE)


def test_training_masks_labels_and_evaluation_never_does(video_spec, rng):
    """Of the byte array alone: nothing else sees the label."""

    def run(rate, video, audio, label, key=None, is_training=False):
        def labels():
            parts = KINDS["video_autoencoder"].parts(specs.parse(spec))
            inputs = {"video": video, "audio": audio, "label": label}
            return parts.preprocess(inputs, is_training=is_training).segments[-1].dense()[:, 0]

        spec = video_spec | {"label_mask_rate": rate}
        transformed = hk.transform(labels)
        return np.asarray(transformed.apply(transformed.init(jax.random.key(0)), key))

    video, audio = np.zeros((40, 3, 8, 20, 3), np.float32), np.zeros((40, 28), np.float32)
    label = rng.random((40, 11), np.float32)
    key = jax.random.key(1)
    given, absent = run(0.5, video, audio, label), run(0.5, video, audio, None)
    np.testing.assert_array_equal(given[:, :11], label)
    np.testing.assert_array_equal(run(1.0, video, audio, label, key, True), absent)
    np.testing.assert_array_equal(run(0.0, video, audio, label, None, True), given)
    np.testing.assert_array_equal(run(0.5, video, audio, None, None, True), absent)
    mixed = run(0.5, video, audio, label, key, True)
    is_masked = (mixed == absent).all(axis=1)
    np.testing.assert_array_equal(mixed[~is_masked], given[~is_masked])
    assert 10 < is_masked.sum() < 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"video": np.zeros((B, 3, 8, 16, 3), np.float32)},
            r"video must be \[batch, 3, 8, 20, 3\]",
        ),
        ({"audio": np.zeros((B, 27), np.float32)}, r"audio must be \[batch, 28\]"),
        ({"audio": np.zeros((3, 28), np.float32)}, "with the same batch"),
        ({"label": np.zeros((B, 7), np.float32)}, r"label must be \[batch, 11\]"),
        ({"label": np.zeros((B, 11), np.int32)}, "label must be floating-point, got int32"),
        ({"video": np.zeros((B, 3, 8, 20, 3), np.uint8)}, r"got uint8; video is in \[0, 1\]"),
        ({"video_queries": np.array([480])}, r"must lie in \[0, 480\), got 480 to 480"),
        ({"audio_queries": np.array([-1, 3])}, r"must lie in \[0, 7\), got -1 to 3"),
        ({"audio_queries": np.array([[1]])}, r"integers \[o\], got int64 \(1, 1\)"),
        ({"video_queries": np.array([1.0])}, "got float64"),
        ({"audio": None}, "needs inputs"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_wrong_inputs_are_refused(video_spec, inputs, change, message):
    model = perceiver.build(video_spec)
    inputs |= change
    with pytest.raises(ValueError, match=message):
        model.check({k: x for k, x in inputs.items() if x is not None})


def test_a_full_video_is_decoded_in_little_memory():
    """802,816 queries of 1,026 channels: as one array 3.3 GB, the hidden layers as much again."""
    model = perceiver.build(MODELS["video-autoencoder"] | {"layers": 1})
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    latents = jax.ShapeDtypeStruct((1, 784, 512), np.float32)
    decode = jax.jit(lambda *a: model.decode(*a, {})).lower(params, state, latents).compile()
    memory = decode.memory_analysis()
    assert memory.output_size_in_bytes < 10e6
    assert memory.temp_size_in_bytes < 100e6

"""The released models' arithmetic: same parameters in, same numbers out, to 1e-5 relative.

The goldens come from DeepMind's own modules at a tiny size (jax 0.10.2, dm-haiku 0.0.17), with
every parameter perturbed so that no bias or scale is trivial.
"""

import pathlib

import jax
import numpy as np
import pytest

import perceiver
from perceiver.weights import deepmind, mapping
from perceiver.weights.stored import StoredArray

pytestmark = pytest.mark.core

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
TOLERANCE = 1e-5  # of the largest magnitude in the golden array

IMAGENET = {
    "kind": "image_classifier",
    "image_shape": (16, 16, 3),
    "classes": 11,
    "bands": 6,
    "latents": 10,
    "latent_channels": 32,
    "layers": 2,
    "blocks": 3,
    "self_heads": 4,
    "query_channels": 32,
}
MASKED_LM = {
    "kind": "masked_lm",
    "max_length": 32,
    "embedding_channels": 24,
    "latents": 12,
    "latent_channels": 40,
    "layers": 2,
    "cross_heads": 4,
    "cross_qk_channels": 16,
    "cross_v_channels": 40,
    "self_heads": 4,
    "self_qk_channels": 16,
    "query_heads": 4,
    "query_qk_channels": 16,
}
OPTICAL_FLOW = {
    "kind": "optical_flow",
    "frame_shape": (10, 14, 3),
    "patch_channels": 12,
    "bands": 5,
    "latents": 9,
    "latent_channels": 32,
    "layers": 2,
    "self_heads": 4,
}


def load(name, spec):
    golden = np.load(GOLDEN / f"{name}.npz")
    source = {
        "/".join(key.split("|")[1:]): StoredArray.of(golden[key])
        for key in golden.files
        if key.startswith("param|")
    }
    model = perceiver.build(spec)
    target, _ = jax.eval_shape(model.init, jax.random.key(0))
    return golden, model, mapping.translate(source, target, deepmind.rules(model.spec))


def assert_close(actual, golden):
    scale = np.abs(golden).max()
    np.testing.assert_allclose(np.asarray(actual) / scale, golden / scale, atol=TOLERANCE, rtol=0)


def test_imagenet_fourier():
    golden, model, params = load("imagenet_fourier", IMAGENET)
    image = golden["input|images"]
    logits, _ = jax.jit(model.apply)(params, {}, None, {"image": image})
    assert_close(logits, golden["out"])


def test_masked_lm_bytes():
    golden, model, params = load("mlm_bytes", MASKED_LM)
    inputs = {"tokens": golden["input|inputs"], "input_mask": golden["input|input_mask"] == 1}
    assert not inputs["input_mask"].all()  # the golden has padding, in and out
    logits, _ = jax.jit(model.apply)(params, {}, None, inputs)
    assert_close(logits, golden["out"])


@pytest.mark.parametrize("path", ["plain", "streaming", "shared", "separable"])
def test_optical_flow(path):
    paths = {"cross_path": path, "decode_path": path, "chunk": 30}
    golden, model, params = load("optical_flow", OPTICAL_FLOW | paths)
    inputs = {"frames": golden["input|images"]}

    @jax.jit
    def run(params, inputs):
        latents = model.encode(params, {}, inputs)
        return model.apply(params, {}, None, inputs)[0], model.decode(params, {}, latents, inputs)

    for flow in run(params, inputs):
        assert_close(20 * flow, golden["out"])  # recorded in pixels


PICKLES = {
    "imagenet_fourier": ("tiny_imagenet_fourier_position_encoding.pystate", IMAGENET),
    "mlm_bytes": ("tiny_language_perceiver_io_bytes.pickle", MASKED_LM),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_of_these_models(name):
    file, spec = PICKLES[name]
    _, _, params = load(name, spec)
    saved = deepmind.read(GOLDEN / file, spec=spec)
    jax.tree.map(np.testing.assert_array_equal, saved.params, params)
    assert saved.state == {}


def test_intermediates_of_imagenet_fourier():
    golden, model, params = load("imagenet_fourier", IMAGENET)
    inner = np.load(GOLDEN / "imagenet_fourier_intermediates.npz")
    inputs = {"image": golden["input|images"]}
    scope = "image_preprocessor/~_build_network_inputs"
    positions = perceiver.SeparableFourier.of_grid((16, 16), bands=6).dense()
    theirs = inner[f"{scope}/fourier_position_encoding#__call__#0@0"]
    assert_close(np.broadcast_to(positions, theirs.shape), theirs)
    run = jax.jit(lambda p, x: (model.encode(p, {}, x), model.attention_maps(p, {}, x)))
    latents, maps = run(params, inputs)
    assert_close(latents, inner["perceiver_encoder#__call__#0@0"])
    assert [m.shape for m in maps] == [(2, 1, 10, 256)]
    block = "perceiver_encoder/~/cross_attention/attention"
    q, k = (inner[f"{block}/{name}#__call__#0@0"] for name in ("linear", "linear_1"))
    logits = np.einsum("bqc,bkc->bqk", q, k) / np.sqrt(q.shape[-1])
    assert_close(maps[0][:, 0], np.asarray(jax.nn.softmax(logits, axis=-1)))

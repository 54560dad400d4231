"""What the tests of the library share: tiny models of all kinds, and parameters worth testing."""

import functools

import haiku as hk
import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import usage
from perceiver.kinds.released import MODELS
from perceiver.summary import summarize
from perceiver.weights import native

# Sizes are distinct primes where heads allow it, so that swapped axes cannot pass unseen.
IMAGE_SPEC = {
    "kind": "image_classifier",
    "image_shape": (5, 7, 3),
    "classes": 11,
    "bands": 2,
    "latents": 13,
    "latent_channels": 8,
    "layers": 2,
    "blocks": 2,
    "self_heads": 2,
    "query_channels": 6,
    "query_residual": True,
}
TEXT_SPEC = {
    "kind": "masked_lm",
    "max_length": 17,
    "embedding_channels": 6,
    "latents": 5,
    "latent_channels": 8,
    "layers": 2,
    "cross_heads": 2,
    "cross_qk_channels": 4,
    "cross_v_channels": 8,
    "self_heads": 2,
    "self_qk_channels": 4,
    "query_heads": 2,
    "query_qk_channels": 4,
}
FLOW_SPEC = {
    "kind": "optical_flow",
    "frame_shape": (5, 7, 3),
    "patch_channels": 4,
    "bands": 2,
    "latents": 13,
    "latent_channels": 8,
    "layers": 2,
    "self_heads": 2,
}
VIDEO_SPEC = {
    "kind": "video_autoencoder",
    "video_shape": (3, 8, 20, 3),  # 3 x 2 x 5 patches of 48 values
    "samples": 28,
    "samples_per_patch": 4,
    "classes": 11,
    "video_bands": 2,
    "audio_bands": 3,
    "label_query_channels": 14,
    "decoder_channels": 9,
    "latents": 13,
    "latent_channels": 8,
    "layers": 2,
    "self_heads": 2,
}
RESNET_SPEC = {
    "kind": "image_resnet",
    "image_shape": (11, 14, 3),
    "classes": 13,
    "blocks_per_stage": (2, 1),
    "stage_channels": (5, 7),
    "positions": "fourier",
    "bands": 2,
}
TRANSFORMER_SPEC = {
    "kind": "image_transformer",
    "image_shape": (6, 10, 3),
    "classes": 13,
    "layers": 2,
    "channels": 8,
    "heads": 2,
    "patch_size": 2,
    "bands": 2,
}
# As small as Hugging Face's class allows.
SMALL_TEXT_SPEC = TEXT_SPEC | {
    "embedding_channels": 16,
    "query_heads": 8,
    "query_qk_channels": 256,
}


@pytest.fixture
def image_spec() -> dict:
    return dict(IMAGE_SPEC)


@pytest.fixture
def text_spec() -> dict:
    return dict(TEXT_SPEC)


@pytest.fixture
def flow_spec() -> dict:
    return dict(FLOW_SPEC)


@pytest.fixture
def video_spec() -> dict:
    return dict(VIDEO_SPEC)


@pytest.fixture
def resnet_spec() -> dict:
    return dict(RESNET_SPEC)


@pytest.fixture
def transformer_spec() -> dict:
    return dict(TRANSFORMER_SPEC)


@pytest.fixture(scope="session")
def small_text_spec() -> dict:
    """A text model that Hugging Face's class can be."""
    return dict(SMALL_TEXT_SPEC)


@functools.cache
def _trees(name: str):
    return jax.eval_shape(perceiver.build(MODELS[name]).init, jax.random.key(0))


@functools.cache
def _summary(name: str) -> dict:
    return summarize(MODELS[name], batch_size=256)


@pytest.fixture(scope="session")
def trees_of():
    """A released model's parameters and state, as shapes, traced once: trees_of(name)."""
    return _trees


@pytest.fixture(scope="session")
def summary_of():
    """A released model's summary for a batch of 256, made once: summary_of(name)."""
    return _summary


@pytest.fixture(scope="session")
def draw_saved():
    """Makes a model of drawn weights with what it is used with: draw_saved(spec)."""

    def draw_saved(spec):
        model = perceiver.build(spec)
        draw = np.random.default_rng(3)
        params, state = jax.tree.map(
            lambda x: np.asarray(draw.standard_normal(x.shape) / 3, x.dtype),
            jax.eval_shape(model.init, jax.random.key(0)),
        )
        return native.Saved(model, params, state, usage.default(model.spec))

    return draw_saved


@pytest.fixture(scope="session")
def draw_params():
    """Draws the parameters that an `init` asks for: draw_params(model.init) or (init, *inputs).

    No bias is zero and no scale one, unlike at the start of training; and as `init` is traced but
    never compiled, this takes a fraction of its time.
    """

    def draw_params(init, *args):
        tree = jax.eval_shape(init, jax.random.key(0), *args)
        tree = tree[0] if isinstance(tree, tuple) else tree  # a model's has its state beside it
        draw = np.random.default_rng(7)

        def leaf(name, shape):
            x = draw.standard_normal(shape).astype(np.float32)
            if name in ("w", "table"):
                return x / np.sqrt(np.prod(shape[:-1]) if len(shape) == 4 else shape[-2])
            return 0.2 * x + (name == "scale")

        return {
            path: {name: leaf(name, x.shape).astype(x.dtype) for name, x in leaves.items()}
            for path, leaves in tree.items()
        }

    return draw_params


@pytest.fixture(scope="session")
def draw_model(draw_params):
    """`perceiver.fresh`, but with drawn weights, for which no `init` is compiled."""

    def draw_model(spec, batch_size=16):
        model = perceiver.build(spec)
        state = jax.eval_shape(model.init, jax.random.key(0))[1]
        params, state = jax.device_put(
            (draw_params(model.init), jax.tree.map(lambda x: np.ones(x.shape, x.dtype), state))
        )
        told = usage.default(model.spec)
        return perceiver.Pretrained(model, params, state, told, "drawn weights", batch_size)

    return draw_model


@pytest.fixture(scope="session")
def run(draw_params):
    """Runs a function of Haiku modules on drawn parameters: run(f, *args) -> (f's, params)."""

    def run(function, *args):
        transformed = hk.transform(function)
        params = draw_params(transformed.init, *args)
        return jax.jit(transformed.apply)(params, None, *args), params

    return run

"""What the tests of the library share: tiny models of both kinds, and parameters worth testing."""

import haiku as hk
import jax
import numpy as np
import pytest

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


@pytest.fixture
def image_spec() -> dict:
    return dict(IMAGE_SPEC)


@pytest.fixture
def text_spec() -> dict:
    return dict(TEXT_SPEC)


@pytest.fixture
def perturb():
    """Moves every parameter, so that no bias is zero and no scale is one."""

    def perturb(params, scale=0.2):
        draw = np.random.default_rng(7)
        return jax.tree.map(
            lambda x: np.asarray(x) + scale * draw.standard_normal(x.shape).astype(np.float32),
            params,
        )

    return perturb


@pytest.fixture
def run(perturb):
    """Runs a function of Haiku modules on perturbed parameters: run(f, *args) -> (f's, params)."""

    def run(function, *args, rng=None):
        transformed = hk.transform(function)
        params = perturb(jax.jit(transformed.init)(jax.random.key(0), *args))
        return jax.jit(transformed.apply)(params, rng, *args), params

    return run

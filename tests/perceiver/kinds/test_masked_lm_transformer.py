"""The Transformer on all tokens: what its head computes, and that padding changes nothing."""

import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import specs
from perceiver.nn.layers import layer_norm

SPEC = {
    "kind": "masked_lm_transformer",
    "vocabulary": 23,
    "max_length": 11,
    "layers": 2,
    "channels": 10,
    "heads": 5,
    "widening": 3,
}


@pytest.fixture
def model():
    return perceiver.build(SPEC)


@pytest.fixture
def inputs(rng):
    tokens = rng.integers(0, 23, (3, 7)).astype(np.int32)
    return {"tokens": tokens, "input_mask": np.arange(7) < np.array([[7], [5], [2]])}


def test_logits_are_products_with_the_embedding(model, inputs, draw_params):
    params = draw_params(model.init)
    logits, _ = jax.jit(model.apply)(params, {}, None, inputs)
    features = np.asarray(jax.jit(model.encode)(params, {}, inputs))  # [3, 7, 10], normalised
    table, bias = params["embedding"]["table"], params["outputs"]["b"]
    np.testing.assert_allclose(logits, features @ table.T + bias, atol=1e-5)
    assert logits.shape == (3, 7, 23)
    plain = (features - params["norm"]["offset"]) / params["norm"]["scale"]
    again = np.asarray(layer_norm(plain, np.ones(10), np.zeros(10)))
    np.testing.assert_allclose(plain, again, atol=1e-4)
    assert model.explain() == {}


def test_padding_changes_nothing_and_tokens_do(model, inputs, draw_params):
    params, apply = draw_params(model.init), jax.jit(model.apply)
    first = np.asarray(apply(params, {}, None, inputs)[0])
    padded = np.where(inputs["input_mask"], inputs["tokens"], 3)
    other = np.asarray(apply(params, {}, None, inputs | {"tokens": padded})[0])
    real = inputs["input_mask"]
    np.testing.assert_allclose(first[real], other[real], atol=1e-5)
    changed = inputs["tokens"].copy()
    changed[:, 1] = (changed[:, 1] + 1) % 23
    moved = np.abs(np.asarray(apply(params, {}, None, inputs | {"tokens": changed})[0]) - first)
    assert (moved[real].max(axis=-1) > 1e-4).all()  # every token reads every other


def test_wrong_inputs_and_sizes_are_named(model, inputs, draw_params):
    with pytest.raises(ValueError, match="longer than the model's 11 positions"):
        model.check({name: np.repeat(x, 2, axis=1) for name, x in inputs.items()})
    with pytest.raises(ValueError, match="channels=10 must be a multiple of heads=3"):
        specs.parse(SPEC | {"heads": 3})
    with pytest.raises(ValueError, match="vocabulary=0 must be positive"):
        specs.parse(SPEC | {"vocabulary": 0})

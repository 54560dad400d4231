"""Parameter counts of the papers' models, to the unit: they decide between readings of a paper."""

import json
import math

import jax
import pytest

import perceiver
from perceiver.released import MODELS

COUNTS = {
    # Perceiver IO, table 7: "48.4M", "62.3M" and "48.6M".
    "imagenet-fourier": 48_440_627,
    "imagenet-learned": 62_255_848,
    "imagenet-conv": 48_646_522,
    # He et al. 2015: "25.6M"; the first convolution reads 258 more channels.
    "resnet-50": 25_557_032,
    "resnet-50-fourier": 26_366_120,
    # Dosovitskiy et al. 2020: "86M". Theirs, with a class token and its position, is 1,536 larger.
    "vit-b-16": 86_566_120,
    "vit-b-16-fourier": 137_140_456,
    "transformer-64": 86_026_216,
    # Perceiver IO, table 1: "201M" (UTF-8 bytes) and "425M" (the same, "++").
    "masked-lm-bytes": 201_108_230,
    "masked-lm-bytes-plus": 425_607_430,
    # Perceiver, tables 6 and 7: "44.9M", eight cross-attends of which the last seven share weights.
    "perceiver-imagenet": 44_912_254,
    # Perceiver, table 6, and Perceiver IO, table 7: "42.1M", one cross-attend.
    "perceiver-imagenet-1": 42_135_859,
    # Perceiver, table 7: "326.2M", nothing shared.
    "perceiver-imagenet-unshared": 326_241_856,
    # The released checkpoints; the paper does not tell the sizes of these.
    "optical-flow": 41_057_134,
    "video-autoencoder": 19_858_855,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_a_released_model(name):
    model = perceiver.build(MODELS[name])
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == COUNTS[name]


def test_every_released_model_is_counted():
    assert COUNTS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_specs_are_plain_data(name):
    assert json.loads(json.dumps(MODELS[name]), object_hook=dict).keys() == MODELS[name].keys()
    perceiver.build(json.loads(json.dumps(MODELS[name])))

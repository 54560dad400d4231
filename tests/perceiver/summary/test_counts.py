"""Parameter counts of the papers' models, to the unit: they decide between readings of a paper."""

import json
import math
import pathlib
import re

import jax
import pytest

import perceiver
from perceiver.kinds.released import MODELS

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden" / "parameters"

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
    "transformer-64": 303_776_744,
    # Perceiver IO, table 1: "201M" (UTF-8 bytes) and "425M" (the same, "++").
    "masked-lm-bytes": 201_108_230,
    "masked-lm-bytes-plus": 425_607_430,
    # The same: "223M" (SentencePiece), and "20M" (BERT on bytes, matched FLOPs).
    "masked-lm-sentencepiece": 223_155_456,
    "bert-bytes": 20_098_310,
    "performer-bytes": 20_098_310,  # the same, with another kernel
    # The same: "110M" (BERT on subwords, without the transform in its head).
    "bert-base": 110_057_216,
    # Perceiver, tables 6 and 7: "44.9M", eight cross-attends of which the last seven share weights.
    "perceiver-imagenet": 44_912_254,
    # Perceiver, table 6, and Perceiver IO, table 7: "42.1M", one cross-attend.
    "perceiver-imagenet-1": 42_135_859,
    # Perceiver, table 6: "44.9M" for two and four cross-attends as for eight.
    "perceiver-imagenet-2": 44_912_254,
    "perceiver-imagenet-4": 44_912_254,
    # Perceiver, table 7: "326.2M", nothing shared.
    "perceiver-imagenet-unshared": 326_241_856,
    # Perceiver IO, table 7: "212M" for both, 16 layers with MLPs four times as wide.
    "imagenet-b-fourier": 212_170_035,
    "imagenet-b-conv": 212_375_930,
    # Perceiver IO, table 7: "55.9M" and "42.1M", see PUBLISHED.
    "perceiver-imagenet-learned": 55_951_080,
    "perceiver-imagenet-conv": 42_341_754,
    # Perceiver, section 4.2, with a width of latents that it does not tell.
    "perceiver-audioset-raw": 27_629_085,
    "perceiver-audioset-mel": 27_171_123,
    "perceiver-audioset-video": 28_763_153,
    "perceiver-audioset-raw-video": 28_787_139,
    "perceiver-audioset-mel-video": 28_787_266,
    # Perceiver IO, table 10: "25.0M" and "88.2M", see MISSED.
    "audioset-perceiver-raw": 20_971_870,  # "21.0M" both
    "audioset-perceiver-mel": 20_971_997,
    "audioset-raw": 24_922_462,
    "audioset-mel": 86_568_413,
    # The released checkpoints; the paper does not tell the sizes of these.
    "optical-flow": 41_057_134,
    "video-autoencoder": 19_858_855,
}

# Millions, as the papers write them: Perceiver, tables 6 and 7; Perceiver IO, tables 1 and 7; the
# baselines' own papers.
PUBLISHED = {
    "imagenet-fourier": "48.4",
    "imagenet-learned": "62.3",
    "imagenet-conv": "48.6",
    "imagenet-b-fourier": "212",
    "imagenet-b-conv": "212",
    "perceiver-imagenet": "44.9",
    "perceiver-imagenet-1": "42.1",
    "perceiver-imagenet-2": "44.9",
    "perceiver-imagenet-4": "44.9",
    "perceiver-imagenet-unshared": "326.2",
    "perceiver-imagenet-learned": "55.9",
    "perceiver-imagenet-conv": "42.1",
    "resnet-50": "25.6",
    "masked-lm-bytes": "201",
    "masked-lm-sentencepiece": "223",
    "bert-bytes": "20",
    "bert-base": "110",
    "audioset-perceiver-raw": "21.0",
    "audioset-perceiver-mel": "21.0",
    "audioset-raw": "25.0",
    "audioset-mel": "88.2",
}
# Millions by which ours have more, where the last digit differs. The learned positions' 55.95 is
# on the edge of rounding to 55.9. The convolutional Perceiver is listed with the Fourier model's
# count, though it has a stem, and reads 61 channels more. Of AudioSet's see AS_WIDE_AS_LATENTS.
# Left out are "425M" and "86M" (ViT-B), 425.6 and 86.6 cut off.
MISSED = {"perceiver-imagenet-learned": 0.051, "perceiver-imagenet-conv": 0.242}
MISSED |= {"audioset-raw": -0.078, "audioset-mel": -1.632}
# With these the published numbers are met to the last digit; their FLOPs (54.0 and 167.6 billion)
# are then far from the published 52.9 and 129.5, see test_flops.py.
AS_WIDE_AS_LATENTS = {"audioset-raw": 512, "audioset-mel": 1024}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_a_released_model(name):
    """By the golden tree, which test_parameters.py compares with the model's own."""
    tree = json.loads((GOLDEN / f"{name}.json").read_text())
    shapes = [re.search(r"\[(.*)\]", leaf)[1] for leaf in tree.values()]
    total = sum(math.prod(map(int, filter(None, shape.split(",")))) for shape in shapes)
    assert total == COUNTS[name]


@pytest.mark.parametrize("name", ["imagenet-fourier", "masked-lm-bytes", "audioset-mel"])
def test_a_summary_counts_them(name, summary_of):
    assert summary_of(name)["parameters"]["total"] == COUNTS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_papers_to_the_last_digit(name):
    millions, digits = COUNTS[name] / 1e6, len(PUBLISHED[name].partition(".")[2])
    if name in MISSED:
        assert millions - float(PUBLISHED[name]) == pytest.approx(MISSED[name], abs=5e-4)
    else:
        assert f"{millions:.{digits}f}" == PUBLISHED[name]


def count(spec) -> int:
    params, _ = jax.eval_shape(perceiver.build(spec).init, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("name", AS_WIDE_AS_LATENTS)
def test_keys_and_values_as_wide_as_latents_have_the_published_parameters(name):
    width = AS_WIDE_AS_LATENTS[name]
    parameters = count(MODELS[name] | {"cross_qk_channels": width, "cross_v_channels": width})
    assert f"{parameters / 1e6:.1f}" == PUBLISHED[name]


def test_every_released_model_is_counted():
    assert COUNTS.keys() == MODELS.keys()

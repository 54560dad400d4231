"""Quickstart: Perceiver IO with Fourier features on 1,797 real handwritten digits (8x8).

    python -m train --config=configs/digits.py --workdir=runs/digits

Variants: fourier (default), learned (learned positions), perceiver (the original one, with four
cross-attends). Two thirds of the digits train, one third is held out.

On the same digits at 16x16 with noise, where neighbouring pixels matter: noisy, a Perceiver IO;
permuted, the same with the pixels in a fixed random order; convnet, a convolutional network with as
many parameters, and convnet-permuted. `python -m experiments.permuted_digits` runs these four (a
small version of Perceiver, table 2).
"""

from configs import common

_QUICK = ("fourier", "learned", "perceiver")
_NOISY = ("noisy", "permuted", "convnet", "convnet-permuted")
VARIANTS = (*_QUICK, *_NOISY)

PERMUTATION = 1  # the seed of a fixed order of the pixels, after position features

_FOURIER = {"positions": "fourier", "bands": 6}
_PERCEIVER = {
    "kind": "image_classifier",
    "image_shape": (8, 8, 1),
    "classes": 10,
    "latents": 24,
    "latent_channels": 96,
    "layers": 3,
    "self_heads": 4,
    "query_channels": 96,
}
_IO = {**_PERCEIVER, "blocks": 2, "position_channels": 32, "head": "query"}
_NOISY_IO = {
    **_PERCEIVER,
    "image_shape": (16, 16, 1),
    "positions": "fourier",
    "bands": 8,
    "cross_heads": 8,
    "cross_qk_channels": 96,  # positions and one grey value are 35 channels
    "cross_v_channels": 96,
    "head": "query",
}
_NOISY_CONVNET = {
    "kind": "image_resnet",
    "image_shape": (16, 16, 1),
    "classes": 10,
    "stem": "small",
    "bottleneck": False,
    "blocks_per_stage": (1, 1, 1),
    "stage_channels": (30, 60, 118),
    "positions": "fourier",
    "bands": 8,
}
_PERMUTED = {"permutation": PERMUTATION}
_MODELS = {
    "fourier": _IO | _FOURIER,
    "learned": _IO | {"stem": "conv1x1", "stem_channels": 32, "positions": "learned"},
    "perceiver": _PERCEIVER
    | _FOURIER
    | {"head": "mean", "encoders": (0, 1, 1, 1), "processors": (0, 0, 0, 0)},
    "noisy": _NOISY_IO,
    "permuted": _NOISY_IO | _PERMUTED,
    "convnet": _NOISY_CONVNET,
    "convnet-permuted": _NOISY_CONVNET | _PERMUTED,
}


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS)
    c = common.get_config("classification", _MODELS[variant])
    c.data.update(source="digits", image_size=8, channels=1, augment="digits")
    c.data.update(batch_size=64, eval_batch_size=200)
    c.train.update(steps=1200, log_every=50, eval_every=400, save_every=400)
    c.optim.update(name="adamw", lr=1.5e-3, weight_decay=0.1, clip_norm=1.0)
    c.optim.update(schedule="warmup_cosine", warmup_steps=50)
    c.loss.label_smoothing = 0.1
    if variant in _NOISY:
        c.data.update(source="noisy_digits", image_size=16, augment="none")
        c.train.update(steps=1500, eval_every=500, save_every=500)
        c.optim.lr = 2e-3
    return common.shrink(c) if "smoke" in options else c

"""Quickstart: Perceiver IO with Fourier pixels on 1,797 real handwritten digits (8x8).

    python -m train --config=configs/digits.py --workdir=runs/digits

Variants: fourier (default), learned (learned positions), perceiver (the classical one, with four
cross-attends). Two thirds of the digits train, one third is held out.
"""

from configs import common

VARIANTS = ("fourier", "learned", "perceiver")

_MODEL = {
    "kind": "image_classifier",
    "image_shape": (8, 8, 1),
    "classes": 10,
    "latents": 24,
    "latent_channels": 96,
    "layers": 3,
    "self_heads": 4,
}
_POSITIONS = {
    "fourier": {"positions": "fourier", "bands": 6},
    "learned": {"stem": "conv1x1", "stem_channels": 32, "positions": "learned"},
    "perceiver": {"positions": "fourier", "bands": 6},
}
_HEADS = {"fourier": "query", "learned": "query", "perceiver": "mean"}


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS)
    model = _MODEL | _POSITIONS[variant] | {"head": _HEADS[variant], "query_channels": 96}
    if variant == "perceiver":
        model |= {"encoders": (0, 1, 1, 1), "processors": (0, 0, 0, 0)}
    else:
        model |= {"blocks": 2, "position_channels": 32}
    c = common.get_config("classification", model)
    c.data.update(source="digits", image_size=8, channels=1, augment="digits")
    c.data.update(batch_size=64, eval_batch_size=200)
    c.train.update(steps=1200, log_every=50, eval_every=400, save_every=400)
    c.optim.update(name="adamw", lr=1.5e-3, weight_decay=0.1, clip_norm=1.0)
    c.optim.update(schedule="warmup_cosine", warmup_steps=50)
    c.loss.label_smoothing = 0.1
    return common.shrink(c, query_channels=32) if "smoke" in options else c

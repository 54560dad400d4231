"""ImageNet classification: the models of both papers' tables.

    python -m data.prepare imagenet --manual_dir DIR       # the official tars, once
    python -m train --config=configs/imagenet.py:fourier --workdir=runs/imagenet

    fourier (default), learned, conv        Perceiver IO A: 2-D Fourier features, learned positions,
                                            a convolutional stem (Perceiver IO, table 7)
    perceiver, perceiver-4, -2, -1          8, 4, 2, 1 cross-attends (Perceiver, table 6)
    perceiver-unshared                      8 of them, nothing shared (Perceiver, table 7)
    perceiver-fourier, -learned, -conv      one cross-attend (Perceiver IO, table 7)
    permuted                                `perceiver` on permuted pixels (Perceiver, table 2)
    b-fourier, b-conv                       Perceiver IO B on a larger set (Perceiver IO, A.2) ...
    b-fourier-tuned, b-conv-tuned           ... fine-tuned on ImageNet: init_from.source
    resnet-50, vit-b-16, transformer-64     the baselines with Fourier features (Perceiver, table 1)
    resnet-50-, vit-b-16-, transformer-64-permuted    and on permuted pixels (table 2)
    resnet-50-plain, vit-b-16-plain         without Fourier features (table 1, as published)
    embedded                                small, on glyphs: `python -m data.prepare glyphs`

Not here: all cross-attends at the start (Perceiver, table 6, 73.7 %), no latent Transformer (table
5), and the first paper's own learned positions of 128 channels with their wider start (tables 1 and
2, 70.9 %). Of `b-*`, labels of the large set may be several per image, and pixels were projected to
256 channels before positions are concatenated (Perceiver IO, A.2): here there is one label, and no
projection; `perceiver/kinds/released.py` says how its counts contradict each other.

Options after a comma: `modern` (not from the papers: bfloat16 products, averaged weights and
micro-batches, for one GPU), `smoke` (two steps of a tiny model). For another resolution set
data.image_size and model.image_shape; for other data `--config.data.source=folder:PATH
--config.model.classes=0`.
"""

from configs import common
from perceiver.kinds import released

_PERMUTATION = 1  # the seed of a fixed order of the pixels, after position features


def _perceiver_io(c):
    """Perceiver IO, appendix A.1; unstated settings are from the released training code."""
    c.train.epochs = 110.0  # A.1
    c.optim.update(name="lamb", b1=0.9, b2=0.999, eps=1e-6)  # A.1
    c.optim.update(lr=2e-3, weight_decay=0.1, clip_norm=10.0)  # A.1
    c.optim.update(schedule="constant_cosine", constant_fraction=0.5)  # A.1: 55 + 55, no warm-up
    c.data.batch_size = 1024  # A.1
    c.data.update(rand_augment_layers=4, rand_augment_magnitude=5)  # A.1
    c.loss.update(mixup_alpha=0.2, cutmix_alpha=1.0)  # code; A.1: "CutMix with a ratio of 0.2"
    c.loss.label_smoothing = 0.1  # code


def _perceiver(c):
    """Perceiver, section 4.1. Not stated: batch size and weight decay, here Perceiver IO's."""
    _perceiver_io(c)
    c.train.epochs = 120.0  # 4.1
    c.optim.update(lr=4e-3, clip_norm=0.0)  # 4.1, which states no clipping
    decay_at = (84 / 120, 102 / 120, 114 / 120)  # 4.1: epochs
    c.optim.update(schedule="step_decay", decay_at=decay_at, decay_factor=0.1)  # 4.1
    # 4.1 names crops and RandAugment only
    c.loss.update(mixup_alpha=0.0, cutmix_alpha=0.0, label_smoothing=0.0)


def _pretrain(c):
    """Perceiver IO, appendix A.2: 300M images of about 18,000 classes, not publicly available."""
    c.data.source = "folder:data/large"  # any large set; its classes are counted
    c.data.batch_size = 8192  # A.2, on 256 TPUs
    c.model.classes = 0
    c.train.epochs = 14.0  # A.2
    c.optim.update(name="lamb", b1=0.9, b2=0.999, eps=1e-6, clip_norm=10.0)  # as A.1
    c.optim.update(lr=3e-4, weight_decay=0.1)  # A.2
    c.optim.update(schedule="constant_cosine", constant_fraction=0.0)  # A.2: cosine to 0
    c.loss.label_smoothing = 0.0  # A.2 names crop and flip only


def _fine_tune(c):
    """Perceiver IO, appendix A.2; augmentation is as in A.1."""
    _perceiver_io(c)
    c.init_from.source = "runs/pretrained"  # --workdir of b-fourier or b-conv
    c.init_from.ignore = ("outputs/decoder/out",)  # other classes: a new last layer
    c.train.steps = 131_000  # A.2
    c.optim.constant_fraction = 70 / 131  # A.2
    c.optim.lr = 2e-4 if c.model.stem == "conv" else 2e-3  # A.2


def _embedded(c):
    """The whole recipe, small enough for about an hour on one CPU core."""
    c.data.update(source="tfds:glyphs", batch_size=32, eval_batch_size=69, workers=0)
    c.data.update(rand_augment_layers=1, rand_augment_magnitude=5)
    c.data.crop_area = (0.5, 1.0)  # a smaller part of a letter cannot be recognised
    c.train.update(epochs=40.0, log_every=50)
    c.optim.update(name="lamb", lr=2e-3, weight_decay=0.1, clip_norm=10.0)
    c.optim.update(schedule="constant_cosine", constant_fraction=0.5)
    c.loss.update(mixup_alpha=0.05, label_smoothing=0.1)  # rarely an even mix: the run is short


def _modern(c):
    """For one modern GPU; the papers' results do not use these settings."""
    if "operands" in c.model:
        c.model.operands = "bfloat16"  # of matrix products; sums, softmax, norms stay float32
    c.optim.ema_decay = 0.9999
    c.train.micro_batches = max(1, c.data.batch_size // 64)


_GLYPHS = {
    "kind": "image_classifier",
    "image_shape": (112, 112, 3),  # a glyph has less detail than a photograph
    "classes": 0,
    "stem": "conv",
    "stem_channels": 64,
    "stem_window": 12,
    "stem_stride": 4,
    "bands": 2,  # with more bands a small model starts to learn later
    "latents": 32,
    "latent_channels": 128,
    "layers": 3,
    "self_heads": 4,
    "query_channels": 128,
}

# variant -> (name in released.MODELS, recipe)
_VARIANTS = {
    "fourier": ("imagenet-fourier", _perceiver_io),
    "learned": ("imagenet-learned", _perceiver_io),
    "conv": ("imagenet-conv", _perceiver_io),
    "perceiver": ("perceiver-imagenet", _perceiver),
    "perceiver-4": ("perceiver-imagenet-4", _perceiver),
    "perceiver-2": ("perceiver-imagenet-2", _perceiver),
    "perceiver-1": ("perceiver-imagenet-1", _perceiver),
    "perceiver-unshared": ("perceiver-imagenet-unshared", _perceiver),
    "perceiver-fourier": ("perceiver-imagenet-1", _perceiver_io),
    "perceiver-learned": ("perceiver-imagenet-learned", _perceiver_io),
    "perceiver-conv": ("perceiver-imagenet-conv", _perceiver_io),
    "permuted": ("perceiver-imagenet", _perceiver),
    "b-fourier": ("imagenet-b-fourier", _pretrain),
    "b-conv": ("imagenet-b-conv", _pretrain),
    "b-fourier-tuned": ("imagenet-b-fourier", _fine_tune),
    "b-conv-tuned": ("imagenet-b-conv", _fine_tune),
    "resnet-50": ("resnet-50-fourier", _perceiver),
    "resnet-50-permuted": ("resnet-50-fourier", _perceiver),
    "vit-b-16": ("vit-b-16-fourier", _perceiver),
    "vit-b-16-permuted": ("vit-b-16-fourier", _perceiver),
    "transformer-64": ("transformer-64", _perceiver),
    "transformer-64-permuted": ("transformer-64", _perceiver),
    "resnet-50-plain": ("resnet-50", _perceiver),
    "vit-b-16-plain": ("vit-b-16", _perceiver),
    "embedded": ("", _embedded),
}
VARIANTS = tuple(_VARIANTS)


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS, ("modern", "smoke"))
    name, recipe = _VARIANTS[variant]
    c = common.get_config("classification", released.MODELS[name] if name else _GLYPHS)
    c.data.update(source="tfds:imagenet2012", channels=3, augment="inception")
    c.data.update(image_size=c.model.image_shape[0], eval_batch_size=1024, workers=8)
    c.train.update(steps=0, log_every=100, eval_every=0, save_every=0)
    recipe(c)
    if variant.endswith("permuted"):
        c.model.permutation = _PERMUTATION
    if "modern" in options:
        _modern(c)
    if "smoke" not in options:
        return c
    c.data.update(source="digits", image_size=16)  # the real number of channels, on bundled images
    c.init_from.source = ""
    return common.shrink(c, image_shape=(16, 16, 3), classes=10)

"""ImageNet classification: Perceiver IO (appendix A) and Perceiver (section 4.1).

    python -m train --config=configs/imagenet.py:fourier --workdir=runs/imagenet

Variants: fourier (default), learned, conv: Perceiver IO with 2-D Fourier features, learned
positions, a convolutional stem; perceiver: 8 cross-attends. The data is TFDS's imagenet2012,
prepared beforehand (`data.data_dir`). Not yet in the data pipeline: RandAugment, mixup and cutmix.
"""

from configs import common
from perceiver import released

VARIANTS = ("fourier", "learned", "conv", "perceiver")

TRAINING_EXAMPLES = 1_281_167


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS)
    name = "perceiver-imagenet" if variant == "perceiver" else f"imagenet-{variant}"
    c = common.get_config("classification", released.MODELS[name])
    c.data.update(source="tfds:imagenet2012", image_size=224, channels=3, augment="inception")
    c.data.update(batch_size=1024, eval_batch_size=1024, workers=8)
    steps_per_epoch = TRAINING_EXAMPLES // c.data.batch_size
    c.train.update(log_every=100, eval_every=steps_per_epoch, save_every=steps_per_epoch)
    c.optim.update(name="lamb", weight_decay=0.1, clip_norm=10.0)
    c.loss.label_smoothing = 0.1  # released code; the paper does not say
    if variant == "perceiver":  # Perceiver, section 4.1; its batch size is not stated
        c.train.steps = 120 * steps_per_epoch
        c.optim.update(schedule="step_decay", lr=4e-3)
    else:  # Perceiver IO, appendix A.1: no warm-up
        c.train.steps = 110 * steps_per_epoch
        c.optim.update(schedule="constant_cosine", lr=2e-3, constant_fraction=0.5)
    if "smoke" not in options:
        return c
    c.data.update(source="digits", image_size=16)  # the true channels, on embedded pictures
    sizes = {"image_shape": (16, 16, 3), "classes": 10, "bands": 4, "query_channels": 32}
    return common.shrink(c, **sizes)

r"""Any TFDS image-classification set, or a folder of class folders, at a size for one small GPU.

The number of classes and the image shape come from the data.

    python -m train --config=configs/images.py --workdir=runs/cifar10
    python -m train --config=configs/images.py --workdir=runs/mnist \
        --config.data.source=tfds:mnist --config.data.channels=1
    python -m train --config=configs/images.py --workdir=runs/mine \
        --config.data.source=folder:PATH --config.data.image_size=64

The data set is prepared beforehand, by TFDS itself; the error says how. One variant: cifar10.
"""

from configs import common


def get_config(arg: str = ""):
    _, options = common.parse_arg(arg, ("cifar10",))
    model = {
        "kind": "image_classifier",
        "image_shape": (),  # from the data
        "classes": 0,
        "bands": 32,
        "latents": 128,
        "latent_channels": 256,
        "layers": 6,
        "blocks": 2,
        "query_channels": 256,
    }
    c = common.get_config("classification", model)
    c.data.update(source="tfds:cifar10", image_size=32, channels=3, augment="inception")
    c.data.update(batch_size=256, eval_batch_size=512, workers=2)
    c.train.update(steps=40_000, log_every=100, eval_every=2_000, save_every=2_000)
    c.optim.update(name="lamb", lr=2e-3, weight_decay=0.1)
    c.loss.label_smoothing = 0.1
    if "smoke" not in options:
        return c
    c.data.source = "digits"
    return common.shrink(c)

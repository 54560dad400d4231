"""What is trained for how long: sizes for two CPU cores, or the smallest that run at all."""

import dataclasses
from typing import Any

from benchmarks.compare.models import CONVOLUTION, NAMES, Spec
from configs import common

TASKS = {"digits": "accuracy", "bytes": "bits"}  # embedded data -> what is told of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one call of the benchmark."""

    systems: tuple[str, ...] = NAMES
    parameters: int = 60_000  # of every model, about
    seeds: tuple[int, ...] = (0, 1, 2)  # of little data
    examples: tuple[int, ...] = (40, 120, 400, 1198)  # digits to learn from; 1,198 are all
    little_steps: int = 400
    sides: tuple[int, ...] = (16, 32)  # of digits, in equal time: 256 and 1,024 inputs
    windows: tuple[int, ...] = (128, 512, 2048)  # of bytes, in equal time
    cpu_seconds: float = 60.0  # of training, in equal time
    eval_bytes: int = 2**18  # that are held out in equal time, evenly spaced
    lengths: tuple[int, ...] = (256, 1024, 4096, 16_384)  # inputs of a timed step
    memory_gib: float = 6.0  # steps that need more are weighed, not run


SMOKE = Settings(
    systems=("Performer", CONVOLUTION),
    parameters=4_000,
    seeds=(0,),
    examples=(40,),
    little_steps=2,
    sides=(4,),
    windows=(64,),
    cpu_seconds=0.0,
    eval_bytes=2**10,
    lengths=(16,),
)


def digits(spec: Spec, *, noisy: bool) -> Any:
    """Returns the config of digits: clear ones of 8x8 pixels, or of any size under noise."""
    side = spec["image_shape"][0]
    c = common.get_config("classification", spec)
    c.placement = "single"
    source = "noisy_digits" if noisy else "digits"
    augment = "none" if noisy else "digits"
    c.data.update(source=source, image_size=side, channels=1, augment=augment)
    c.data.update(batch_size=32, eval_batch_size=200)
    if noisy:  # in equal time: how many steps there will be is not known
        return _train(c, schedule="constant", lr=1e-3)
    return _train(c, schedule="warmup_cosine", lr=2e-3)


def masked_bytes(spec: Spec, eval_bytes: int) -> Any:
    """Returns the config of masked bytes of the standard library's text."""
    c = common.get_config("masked_lm", spec)
    c.placement = "single"
    window = spec["max_length"]
    c.data.update(source="stdlib_text", seq_len=window, masking="byte")
    c.data.update(batch_size=2048 // window, eval_batch_size=16_384 // window)
    c.data.eval_examples = eval_bytes // window
    return _train(c, schedule="constant", lr=1e-3)


def _train(c: Any, **optim: Any) -> Any:
    c.optim.update(name="adamw", weight_decay=0.1, clip_norm=1.0, **optim)
    return c

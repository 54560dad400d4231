"""Time and temporary memory of a training step against the number of inputs, batch 1.

Grey images of more and more pixels, every pixel an input; forward, backward and AdamW.
"""

import math

import jax
import jax.numpy as jnp

from benchmarks import measure
from benchmarks.compare import models, settings
from benchmarks.compare.results import Results
from benchmarks.compare.settings import Settings
from train import experiment, step

PART = "lengths"
_ROUNDS = 3


def run(given: Settings, results: Results) -> None:
    """Weighs every system at every number of inputs, and times what fits into memory."""
    for inputs in given.lengths:
        side = math.isqrt(inputs)
        for name, spec in models.images(side, given.parameters, given.systems).items():

            def weigh(spec=spec):
                return _weigh(spec, given.memory_gib)

            results.measure(weigh, part=PART, inputs=inputs, system=name)


def _weigh(spec: models.Spec, memory_gib: float) -> dict[str, float]:
    made = experiment.make(settings.digits(spec, noisy=True))
    train = step.make_train_step(made.task, made.optimizer, seed=0)
    height, width, channels = spec["image_shape"]
    batch = {
        "image": jnp.ones((1, height, width, channels)),
        "label": jnp.ones(1, jnp.int32),
        "mask": jnp.ones(1, bool),
    }
    program = measure.compile_program(train, jax.jit(made.init_state)(), batch)
    found = {"temp_mib": program.temp_mib}
    if program.temp_mib > 1024 * memory_gib:
        return found
    timing = measure.race({"step": program}, _ROUNDS)["step"]
    return found | {"cpu_s": min(timing.cpus), "wall_s": min(timing.walls)}

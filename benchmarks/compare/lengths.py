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
        for name, spec in models.images(math.isqrt(inputs), given.parameters).items():

            def weigh(spec=spec):
                return _weigh(spec, given.memory_gib)

            results.measure(weigh, part=PART, inputs=inputs, system=name)


def _weigh(spec: models.Spec, memory_gib: float) -> dict[str, float]:
    made = experiment.make(settings.digits(spec, noisy=True))
    train = step.make_train_step(made.task, made.optimizer, seed=0)
    height, width, channels = spec["image_shape"]
    batch = {
        "image": jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32),
        "label": jax.ShapeDtypeStruct((1,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1,), jnp.bool_),
    }
    state = jax.eval_shape(made.init_state)
    found = {"temp_mib": measure.compile_program(train, state, batch).temp_mib}
    if found["temp_mib"] > 1024 * memory_gib:
        return found
    arguments = (
        jax.jit(made.init_state)(),
        jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), batch),
    )
    program = measure.compile_program(train, *arguments)
    timing = measure.race({"step": program}, _ROUNDS)["step"]
    return found | {"cpu_s": min(timing.cpus), "wall_s": min(timing.walls)}

"""Accuracy against the number of training examples: what does a Perceiver do on little data?

Clear 8x8 digits, shifted a little in training, of which 599 are held out; the same steps, batch
and optimiser for all.
"""

from benchmarks.compare import models, settings, trial
from benchmarks.compare.results import Results
from benchmarks.compare.settings import Settings

PART = "little data"
SIDE = 8


def run(given: Settings, results: Results) -> None:
    """Trains every system on every number of examples with every seed."""
    for name, spec in models.images(SIDE, given.parameters, given.systems).items():
        config = settings.digits(spec, noisy=False)
        config.train.steps = given.little_steps
        config.optim.warmup_steps = given.little_steps // 20
        trainer = trial.trainer(config)
        for seed in given.seeds:
            for examples in given.examples:

                def measure(trainer=trainer, seed=seed, examples=examples):
                    found = trainer.run(steps=given.little_steps, seed=seed, examples=examples)
                    return {"accuracy": 100 * found["accuracy"]}

                key = {"system": name, "examples": examples, "seed": seed}
                results.measure(measure, part=PART, parameters=models.count(spec), **key)

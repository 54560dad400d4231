"""What each system reaches in equal CPU time, against the number of inputs.

Digits under noise, enlarged to more and more pixels, and masked bytes in longer and longer
windows. All systems have about the same number of parameters; a step's CPU time is measured first,
and says how many steps fit.
"""

from typing import Any

from benchmarks.compare import models, settings, trial
from benchmarks.compare.results import Results
from benchmarks.compare.settings import TASKS, Settings

PART = "equal time"


def run(given: Settings, results: Results) -> None:
    """Trains every system at every number of inputs."""
    for side in given.sides:
        for name, spec in models.images(side, given.parameters).items():
            config = settings.digits(spec, noisy=True)
            _measure("digits", side**2, name, spec, config, given, results)
    for window in given.windows:
        for name, spec in models.texts(window, given.parameters).items():
            _measure("bytes", window, name, spec, settings.masked_bytes(spec), given, results)


def _measure(task: str, inputs: int, name: str, spec, config: Any, given, results) -> None:
    def measure():
        seconds = trial.trainer(config).seconds()
        steps = max(given.least_steps, int(given.cpu_seconds / seconds))
        found = trial.trainer(settings.steps(config, steps)).run(steps=steps, seed=0)
        factor = 100 if TASKS[task] == "accuracy" else 1
        return {"steps": steps, "step_cpu_s": seconds, TASKS[task]: factor * found[TASKS[task]]}

    key = {"task": task, "inputs": inputs, "system": name}
    results.measure(measure, part=PART, parameters=models.count(spec), **key)

"""What each system reaches in equal CPU time, against the number of inputs.

Digits under noise, enlarged to more and more pixels, and masked bytes in longer and longer
windows, 2,048 bytes a batch. A system is as wide at every length; with longer windows it learns
more positions. All train at one constant rate until the time is over, compilation not counted.
"""

from typing import Any

from benchmarks.compare import models, settings, trial
from benchmarks.compare.results import Results
from benchmarks.compare.settings import TASKS, Settings

PART = "equal time"


def run(given: Settings, results: Results) -> None:
    """Trains every system at every number of inputs."""
    for side in given.sides:
        for name, spec in models.images(side, given.parameters, given.systems).items():
            config = settings.digits(spec, noisy=True)
            _measure("digits", side**2, name, config, given, results)
    for window in given.windows:
        for name, spec in models.texts(window, given.parameters, given.systems).items():
            config = settings.masked_bytes(spec, given.eval_bytes)
            _measure("bytes", window, name, config, given, results)


def _measure(
    task: str, inputs: int, name: str, config: Any, given: Settings, results: Results
) -> None:
    def measure():
        found = trial.trainer(config).run(seed=0, cpu_seconds=given.cpu_seconds)
        factor = 100 if TASKS[task] == "accuracy" else 1
        return {"steps": found["steps"], TASKS[task]: factor * found[TASKS[task]]}

    key = {"task": task, "inputs": inputs, "system": name}
    parameters = models.count(config.model.to_dict())
    results.measure(measure, part=PART, parameters=parameters, **key)

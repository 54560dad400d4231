"""Perceivers beside what people use in their place, all of about the same number of parameters.

    python -m experiments.comparison [--parts little time lengths] [--smoke]

little:  accuracy against the number of training examples, clear 8x8 digits, shifted a little in
         training, of which 599 are held out; the same steps, batch and optimiser for all
time:    what each system reaches in equal CPU time against the number of inputs: digits under
         noise, enlarged to more and more pixels, and masked bytes in longer and longer windows,
         2,048 bytes a batch. A system is as wide at every length; with longer windows it learns
         more positions. All train at one constant rate until the time is over, compiling not
         counted
lengths: time and temporary memory of a training step against the number of inputs, batch 1: grey
         images, every pixel an input; forward, backward and AdamW

Results are kept in the folder, a JSON line each, so that an interrupted call resumes. They are
printed as tables and drawn.
"""

import contextlib
import functools
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from configs import common as configs
from experiments import common
from train import experiment, step
from train.objective import metrics

Spec = dict[str, Any]
Row = dict[str, Any]  # the key's fields and what was measured

HEADS = 4  # of all attention
SYSTEMS: dict[str, Spec] = {  # in fields of a Perceiver IO's spec
    "Perceiver IO": {},
    "Perceiver": {"encoders": (0, 1, 1), "processors": (0, 0, 0), "head": "mean"},
    "Transformer": {"body": "transformer"},
    "Performer": {"body": "transformer", "kernel": "favor_relu", "kernel_features": 64},
    "DeepNet stack": {"layers": 16, "residual": "deepnorm"},
}
CONVOLUTION = "convolutional network"
_ATTENTION = {"layers": 3, "cross_heads": HEADS, "self_heads": HEADS, "query_heads": HEADS}
_IMAGES = {
    "kind": "image_classifier",
    "classes": 10,
    "positions": "fourier",
    "bands": 6,
    "latents": 16,
    "head": "query",
    **_ATTENTION,
}
_CONVOLUTION = {
    "kind": "image_resnet",
    "classes": 10,
    "stem": "small",
    "bottleneck": False,
    "blocks_per_stage": (1, 1, 1),
}
_TEXTS = {
    "kind": "masked_lm",
    "embedding_scale": 0.1,
    "position_scale": 0.1,
    "position_start": "sinusoids",
    "latents": 32,
    **_ATTENTION,
}


class Settings(NamedTuple):
    """Sizes for two CPU cores."""

    systems: tuple[str, ...] = (*SYSTEMS, CONVOLUTION)
    parameters: int = 60_000  # of every model, about
    seeds: tuple[int, ...] = (0, 1, 2)  # of little data
    examples: tuple[int, ...] = (40, 120, 400, 1198)  # digits to learn from; 1,198 are all
    little_steps: int = 400
    sides: tuple[int, ...] = (16, 32)  # of digits, in equal time: 256 and 1,024 inputs
    windows: tuple[int, ...] = (128, 512, 2048)  # of bytes, in equal time
    cpu_seconds: float = 60.0  # of training, in equal time
    eval_bytes: int = 2**18  # that are held out in equal time, evenly spaced
    lengths: tuple[int, ...] = (256, 1024, 4096, 16_384)  # inputs of a timed step
    memory_gib: float = 6.0  # steps that need more are compiled, but not run


SMOKE = Settings(
    systems=(CONVOLUTION,),
    parameters=4_000,
    seeds=(0,),
    examples=(40,),
    little_steps=2,
    sides=(4,),
    windows=(),
    cpu_seconds=0.0,
    eval_bytes=2**10,
    lengths=(16,),
)


def image(name: str, side: int, width: int) -> Spec:
    """Returns the spec of a system for grey images; its size does not depend on the side."""
    shape = {"image_shape": (side, side, 1)}
    if name == CONVOLUTION:
        return _CONVOLUTION | shape | {"stage_channels": (width // 2, width, 2 * width)}
    names = ("latent_channels", "query_channels", "cross_qk_channels", "cross_v_channels")
    return _IMAGES | shape | dict.fromkeys(names, width) | SYSTEMS[name]


def text(name: str, length: int, width: int) -> Spec:
    """Returns the spec of a system for windows of bytes."""
    names = ("latent_channels", "embedding_channels", "cross_qk_channels", "cross_v_channels")
    widths = dict.fromkeys((*names, "query_qk_channels"), width)
    # every position is asked for, so no mean can answer
    changes = {field: x for field, x in SYSTEMS[name].items() if field != "head"}
    return _TEXTS | {"max_length": length} | widths | changes


@functools.cache
def width_for(make: Callable[[str, int, int], Spec], name: str, parameters: int) -> int:
    """Returns the width whose number of parameters, a quadratic function of it, is nearest.

    Windows of 128 bytes are counted; longer ones have more positions.
    """
    smallest = 4 if make is image else 128
    counted = [2 * HEADS, 6 * HEADS, 10 * HEADS]
    sizes = [common.parameters(make(name, smallest, width)) for width in counted]
    quadratic = np.polynomial.Polynomial.fit(counted, sizes, deg=2)
    widths = np.arange(HEADS, 80 * HEADS, HEADS)
    return int(widths[np.abs(quadratic(widths) - parameters).argmin()])


def spec_of(make: Callable[[str, int, int], Spec], name: str, size: int, parameters: int) -> Spec:
    """Returns a system's spec near a number of parameters: `make` is `image` or `text`."""
    return make(name, size, width_for(make, name, parameters))


def digits(spec: Spec, *, noisy: bool) -> Any:
    """Returns the config of digits: clear ones of 8x8 pixels, or of any size under noise."""
    c = configs.get_config("classification", spec)
    source, augment = ("noisy_digits", "none") if noisy else ("digits", "digits")
    c.data.update(source=source, image_size=spec["image_shape"][0], channels=1, augment=augment)
    c.data.update(batch_size=32, eval_batch_size=200)
    # in equal time it is not known how many steps there will be
    schedule, rate = ("constant", 1e-3) if noisy else ("warmup_cosine", 2e-3)
    return _optimised(c, schedule, rate)


def masked_bytes(spec: Spec, eval_bytes: int) -> Any:
    """Returns the config of masked bytes of the standard library's text."""
    c, window = configs.get_config("masked_lm", spec), spec["max_length"]
    c.data.update(source="stdlib_text", seq_len=window, masking="byte")
    c.data.update(batch_size=2048 // window, eval_batch_size=16_384 // window)
    c.data.eval_examples = eval_bytes // window
    return _optimised(c, "constant", 1e-3)


def _optimised(c: Any, schedule: str, rate: float) -> Any:
    c.placement = "single"
    c.optim.update(name="adamw", weight_decay=0.1, clip_norm=1.0, schedule=schedule, lr=rate)
    return c


class Trainer:
    """Compiled functions of one config, for any seed and any part of its data.

    It keeps no checkpoints, so that a hundred small trainings share six compilations.
    """

    def __init__(self, config: Any):
        made = experiment.make(config)
        example = made.task.model.example_inputs(1)
        self.config, self._train, self._eval = config, made.train_step(), made.eval_step()
        self._init = jax.jit(lambda seed: step.init_state(made.task, made.optimizer, seed, example))

    def run(
        self, *, seed: int, examples: int = 0, steps: int = 1, cpu_seconds: float = 0.0
    ) -> dict[str, float]:
        """Trains afresh and returns the metrics of all held-out examples, and the `steps` taken.

        Args:
          seed: of the parameters, the order and the random choices of the data.
          examples: of the training split that are used; 0: all.
          steps: to take, at least.
          cpu_seconds: to train as long as there is time left, compiling not counted.
        """
        config = self.config.copy_and_resolve_references()
        with config.unlocked():
            config.seed, config.data.train_examples = seed, examples
        current = experiment.make(config.lock())
        state, taken, began = current.placement.place(self._init(seed)), 0, math.inf
        with contextlib.closing(current.batches("train", train=True)) as batches:
            while taken < max(steps, 1) or time.process_time() - began < cpu_seconds:
                batch = current.placement.put(next(batches))
                state = jax.block_until_ready(self._train(state, batch)[0])
                taken += 1
                began = time.process_time() if taken == 1 else began  # the first compiles
        with contextlib.closing(current.batches("validation", train=False)) as batches:
            put = current.placement.put
            found = metrics.total(self._eval(state, put(x)) for x in batches)
        return metrics.means(found) | {"steps": taken}


class Results:
    """Rows in a file of JSON lines: what is there is not measured again."""

    def __init__(self, folder: pathlib.Path):
        self._file = folder / "results.jsonl"
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def measure(self, run: Callable[[], Row], **key: Any) -> None:
        """Adds the row of a key, unless there is one."""
        if not any(key.items() <= row.items() for row in self.rows):
            self.rows.append(key | run())
            with self._file.open("a") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")
            print(self.rows[-1], flush=True)

    def select(self, **key: Any) -> list[Row]:
        """Returns the rows with these fields."""
        return [row for row in self.rows if key.items() <= row.items()]


def little(given: Settings, results: Results) -> None:
    """Trains every system on every number of examples with every seed."""
    for name in given.systems:
        spec = spec_of(image, name, 8, given.parameters)
        config = digits(spec, noisy=False)
        config.train.steps, config.optim.warmup_steps = given.little_steps, given.little_steps // 20
        trainer, size = Trainer(config), common.parameters(spec)
        for seed in given.seeds:
            for count in given.examples:

                def run(trainer=trainer, seed=seed, count=count):
                    found = trainer.run(steps=given.little_steps, seed=seed, examples=count)
                    return {"score": 100 * found["accuracy"]}

                key = {"part": "little", "system": name, "x": count, "seed": seed}
                results.measure(run, parameters=size, **key)


def equal_time(given: Settings, results: Results) -> None:
    """Trains every system at every number of inputs."""
    for make, sizes in ((image, given.sides), (text, given.windows)):
        for size in sizes:
            for name in given.systems:
                if make is text and name == CONVOLUTION:
                    continue
                spec = spec_of(make, name, size, given.parameters)
                if make is image:
                    config, part, inputs = digits(spec, noisy=True), "digits", size**2
                else:
                    config, part, inputs = masked_bytes(spec, given.eval_bytes), "bytes", size

                def run(config=config, part=part):
                    found = Trainer(config).run(seed=0, cpu_seconds=given.cpu_seconds)
                    score = 100 * found["accuracy"] if part == "digits" else found["bits"]
                    return {"score": score, "steps": found["steps"]}

                key = {"part": part, "system": name, "x": inputs}
                results.measure(run, parameters=common.parameters(spec), **key)


def lengths(given: Settings, results: Results) -> None:
    """Compiles every system at every number of inputs, and times what fits into memory."""
    for inputs in given.lengths:
        for name in given.systems:
            spec = spec_of(image, name, math.isqrt(inputs), given.parameters)

            def run(spec=spec):
                made = experiment.make(digits(spec, noisy=True))
                train = step.make_train_step(made.task, made.optimizer, seed=0)
                batch = {"image": jnp.ones((1, *spec["image_shape"]))}
                batch |= {"label": jnp.ones(1, jnp.int32), "mask": jnp.ones(1, bool)}
                program = measure.compile_program(train, jax.jit(made.init_state)(), batch)
                found = {"temp_mib": program.temp_mib}
                if program.temp_mib > 1024 * given.memory_gib:
                    return found
                return found | {"cpu_s": min(measure.race({"": program}, 3)[""].cpus)}

            results.measure(run, part="lengths", system=name, x=inputs)


def _cell(part: str, rows: list[Row]) -> str:
    if part == "little":
        return common.each([row["score"] for row in rows])
    (row,) = rows
    if part == "lengths":
        seconds = f"{row['cpu_s']:.3g} s" if "cpu_s" in row else "not run"
        return f"{row['temp_mib']:,.1f} MiB, {seconds}"
    return f"{row['score']:.{1 if part == 'digits' else 2}f} ({row['steps']:,})"


TITLES = {
    "little": "Accuracy, %, against the number of training examples",
    "digits": "Digits in equal time: accuracy, % (steps), against the number of pixels",
    "bytes": "Bytes in equal time: bits per masked byte (steps), against the window",
    "lengths": "A training step: MiB, CPU seconds, against the number of inputs",
}


def tables(results: Results) -> str:
    """Returns a Markdown table of each part that there are results of."""
    found = []
    for part, title in TITLES.items():
        own, rows = results.select(part=part), []
        for name in dict.fromkeys(row["system"] for row in own):
            mine = [row for row in own if row["system"] == name]
            sizes = sorted({row["parameters"] for row in mine if "parameters" in row})
            size = " to ".join(dict.fromkeys(f"{n:,}" for n in (*sizes[:1], *sizes[-1:])))
            row = {"system": name} | ({"parameters": size} if size else {})
            for x in sorted({row["x"] for row in own}):
                if at := [row for row in mine if row["x"] == x]:
                    row[f"{x:,}"] = _cell(part, at)
            rows.append(row)
        found += [f"{title}\n\n{measure.table(rows)}"] if rows else []
    return "\n".join(found)


def draw(results: Results, path: pathlib.Path) -> None:
    """Draws a panel for each part."""
    figure = common.figure(12, 7)
    axes = figure.subplots(2, 3).ravel()
    panels = (
        ("little", "score", "digits to learn from", "held-out accuracy, %"),
        ("digits", "score", "pixels, in equal time", "held-out accuracy, %"),
        ("bytes", "score", "bytes of a window, in equal time", "bits per masked byte"),
        ("lengths", "cpu_s", "inputs", "CPU seconds of a step, batch 1"),
        ("lengths", "temp_mib", "inputs", "temporary MiB of a step, batch 1"),
    )
    for axis, (part, y, across, up) in zip(axes, panels, strict=False):
        for i, name in enumerate((*SYSTEMS, CONVOLUTION)):
            own = [row for row in results.select(part=part, system=name) if y in row]
            by_x = {x: [r[y] for r in own if r["x"] == x] for x in sorted({r["x"] for r in own})}
            means = [statistics.mean(values) for values in by_x.values()]
            axis.plot([*by_x], means, "o-", color=f"C{i}", label=name, markersize=3)
            axis.plot([r["x"] for r in own], [r[y] for r in own], ".", color=f"C{i}", alpha=0.4)
        axis.set(xscale="log", yscale="log" if part == "lengths" else "linear")
        axis.set(xlabel=across, ylabel=up)
        axis.grid(alpha=0.2)
    axes[5].legend(*axes[0].get_legend_handles_labels(), loc="center", frameon=False)
    axes[5].set_axis_off()
    common.save(figure, path)


PARTS = {"little": little, "time": equal_time, "lengths": lengths}


def main() -> None:
    """Runs the parts asked for; prints and draws all results."""
    parser = common.parser(__doc__, "comparison")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    common.start(options)
    results = Results(options.folder)
    for part in options.parts:
        PARTS[part](SMOKE if options.smoke else Settings(), results)
    print(tables(results))
    draw(results, options.folder / "comparison.png")


if __name__ == "__main__":
    main()

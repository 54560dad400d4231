"""Performer: the error of random features, what they save, and a trained model swapped to them.

    python -m experiments.performer [--parts error scaling swap] [--smoke]

error: of exp(x . y), beside the paper's closed forms (2009.14794, equation 8), and of the attention
of its figure 4: 4,096 queries and keys of 16 channels.

scaling: time and memory of one head of 64 channels with 256 directions, batch 1, float32, from a
thousand to 65,536 elements, exact and by random features.

swap: the model of `configs/masked_lm.py:performer`, smaller, learns masked bytes of the standard
library with the exact kernel; then its weights are evaluated with another one, as they are, and
after a third as many steps again. The same steps with the exact kernel show what these alone are
worth. It trains five small models.
"""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from configs import masked_lm
from experiments import common
from perceiver import attention
from perceiver.attention import favor, random_features, reference
from train import evaluate, loop
from train.guard.broken_examples import BrokenExamples
from train.run import trained_model

KINDS = ("positive", "hyperbolic", "trigonometric")
CHANNELS, DRAWS = 16, 8
SCALES = (0.5, 1.0)  # standard deviations of queries and keys
ANGLES = np.linspace(0.2, 3.0, 8)
KERNELS = {"recompute": "exact", "favor_positive": "positive", "favor_relu": "ReLU"}
WORKS = ("forward", "forward and backward")
EXACT_TIMED = 16384  # beyond, the exact kernel is compiled, but not run: 17 GB of weights
SWAPS = (  # name, kernel, whether features are redrawn in each step
    ("exact", "auto", False),
    ("positive, redrawn", "favor_positive", True),
    ("positive, fixed", "favor_positive", False),
    ("ReLU, fixed", "favor_relu", False),
)
STEPS, TUNING_STEPS = 3000, 1000

Rows = list[dict[str, Any]]


def kernel_errors(*, length: float = 0.5, features: int = 4, draws: int = 20_000) -> Rows:
    """Returns mean squared errors of kernel values at some angles, measured and in closed form."""
    x, y = np.zeros((2, len(ANGLES), CHANNELS), np.float32)
    x[:, 0] = length
    y[:, 0], y[:, 1] = length * np.cos(ANGLES), length * np.sin(ANGLES)
    rows, truth = [], np.exp(np.sum(x * y, axis=-1))
    for orthogonal in (False, True):
        how = {"features": features, "channels": CHANNELS, "orthogonal": orthogonal}
        draw = functools.partial(random_features.directions, **how)
        w = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), draws))
        for kind in KINDS:
            one = functools.partial(random_features.estimate, kind, x[None, None], y[None, None])
            found = np.asarray(jax.jit(jax.vmap(one))(w))[:, 0, 0]  # [draws, angles]
            expected = random_features.mean_squared_error(kind, x, y, features)
            for i, angle in enumerate(ANGLES):
                row = {"features": kind, "orthogonal": orthogonal, "angle": float(angle)}
                row["squared error"] = float(np.mean((found[:, i] - truth[i]) ** 2))
                rows.append(row | {"closed form": float(expected[i])})
    return rows


def attention_errors(length: int, features: tuple[int, ...]) -> Rows:
    """Returns squared errors of the result, relative to its mean square: medians of draws."""
    rows, keys = [], jax.random.split(jax.random.key(0), DRAWS)
    for scale in SCALES:
        rng = np.random.default_rng(0)
        q, k, v = (
            jnp.asarray(size * rng.standard_normal((1, length, 1, CHANNELS), np.float32))
            for size in (scale, scale, 1.0)
        )
        truth = reference.attend(q, k, v)
        for kind in KINDS:
            attend = jax.jit(functools.partial(favor.attend_by, kind=kind))
            for orthogonal in (False, True):
                row = {"scale": scale, "features": kind, "orthogonal": orthogonal}
                for m in features:
                    how = {"orthogonal": orthogonal}
                    w = [random_features.directions(key, m, CHANNELS, **how) for key in keys]
                    squares = [jnp.mean((attend(x, q, k, v) - truth) ** 2) for x in w]
                    row[f"m = {m:,}"] = float(np.median(squares) / jnp.mean(truth**2))
                rows.append(row)
    return rows


def error(folder: pathlib.Path, smoke: bool) -> list[Rows]:
    """Measures errors; `folder` is not used."""
    sizes = (64, (4, 16)) if smoke else (4096, (16, 64, 256, 1024))
    return [kernel_errors(draws=500) if smoke else kernel_errors(), attention_errors(*sizes)]


def scaling(folder: pathlib.Path, smoke: bool) -> list[Rows]:
    """Compiles and times attention; `folder` is not used."""
    lengths = (64, 256) if smoke else (1024, 4096, 16384, 65536)
    rows = []
    for name, kernel in KERNELS.items():
        for work in WORKS:
            for length in lengths:
                program = _program(name, work, length)
                row = {"kernel": kernel, "work": work, "elements": length}
                row["temp MiB"] = program.temp_mib
                if name != "recompute" or length <= EXACT_TIMED:
                    # each by itself: one that frees gigabytes would slow down the next
                    row["CPU s"] = measure.race({name: program}, 3)[name].cpu
                rows.append(row)
    exponents = [
        {"kernel": kernel, "work": work}
        | {f"exponent of {x}": slope(points(rows, kernel, work, x)) for x in ("CPU s", "temp MiB")}
        for kernel in KERNELS.values()
        for work in WORKS
    ]
    return [rows, exponents]


def _program(name: str, work: str, length: int) -> measure.Program:
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal((1, length, 1, 64), np.float32)) for _ in "qkv"]
    attend = attention.kernel(name, features=256)
    if work == WORKS[0]:
        return measure.compile_program(attend, *arrays)

    def gradient(q, k, v):
        return jax.value_and_grad(lambda *qkv: attend(*qkv).sum(), argnums=(0, 1, 2))(q, k, v)

    return measure.compile_program(gradient, *arrays)


def points(rows: Rows, kernel: str, work: str, field: str) -> list[tuple[float, float]]:
    """Returns (length, figure) of what was measured."""
    own = [r for r in rows if (r["kernel"], r["work"]) == (kernel, work) and field in r]
    return [(row["elements"], row[field]) for row in own]


def slope(found: list[tuple[float, float]]) -> float:
    """Returns the exponent of a power law through the points of the larger half of lengths."""
    x, y = np.log(np.array(found[len(found) // 2 - 1 :])).T
    return float(np.polyfit(x, y, 1)[0])


def swap_config(kernel: str, redraw: bool, steps: int, smoke: bool) -> Any:
    """Returns the config of a run with a kernel, of so many steps."""
    c = masked_lm.get_config("performer,smoke" if smoke else "performer")
    c.model.update(kernel=kernel, kernel_redraw=redraw)
    if smoke:
        c.data.eval_examples = 64
    else:
        c.model.update(channels=64, layers=2, heads=4, kernel_features=128)
        c.optim.update(lr=2e-3, warmup_steps=steps // 30)
        c.train.update(steps=steps, eval_every=steps, save_every=steps)
    return c


def swap(folder: pathlib.Path, smoke: bool) -> list[Rows]:
    """Trains, swaps and tunes, each in a folder of its own; returns held-out bits per byte."""
    first, rows = folder / "exact", []
    loop.run(swap_config("auto", False, STEPS, smoke), first)
    for name, kernel, redraw in SWAPS[: 3 if smoke else None]:
        tuning = swap_config(kernel, redraw, TUNING_STEPS, smoke)
        swapped = trained_model.from_weights(tuning, str(first))
        before, _ = evaluate.predict(swapped.experiment, swapped.state, BrokenExamples(print))
        tuning.init_from.source = str(first)
        after = loop.run(tuning, folder / f"tuned, {name}")
        rows.append({"kernel": name, "as it is": before["bits"], "tuned": after["bits"]})
    return [rows]


def draw(found: dict[str, list[Rows]], path: pathlib.Path) -> None:
    """Draws the parts that were run: errors above; time, memory and the swap below."""
    figure = common.figure(13, 7.5)
    top, bottom = figure.subplots(2, 3)
    kernels, attentions = found.get("error", ([], []))
    for i, kind in enumerate(KINDS):
        for orthogonal, marker in ((False, "o"), (True, "x")):
            label = f"{kind}, {'orthogonal' if orthogonal else 'independent'}"
            how = {"color": f"C{i}", "label": label, "markersize": 4}
            own = [r for r in kernels if (r["features"], r["orthogonal"]) == (kind, orthogonal)]
            angles = [row["angle"] for row in own]
            top[0].semilogy(angles, [row["squared error"] for row in own], marker, **how)
            top[0].semilogy(angles, [row["closed form"] for row in own], "-", color=f"C{i}", lw=1)
            for axes, scale in zip(top[1:], SCALES, strict=True):
                same = (scale, kind, orthogonal)
                for row in attentions:
                    if (row["scale"], row["features"], row["orthogonal"]) == same:
                        errors = {
                            int(k[4:].replace(",", "")): row[k] for k in row if k[:4] == "m = "
                        }
                        axes.loglog([*errors], [*errors.values()], f"{marker}-", **how)
                axes.set_title(f"logits of variance {scale**4:.2g}", fontsize=9)
    top[0].set(xlabel="angle between x and y", ylabel="squared error of exp(x . y); lines: theory")
    rows = found.get("scaling", ([],))[0]
    for axes, field in zip(bottom, ("CPU s", "temp MiB"), strict=False):
        for i, kernel in enumerate(KERNELS.values()):
            for work, style in zip(WORKS, ("o:", "s-"), strict=True):
                if own := points(rows, kernel, work, field):
                    label = f"{kernel}, {work}: exponent {slope(own):.2f}"
                    axes.loglog(*zip(*own, strict=True), style, color=f"C{i}", label=label)
        axes.set(xlabel="elements", ylabel=field)
    for row in found.get("swap", [[]])[0]:
        bottom[2].plot(
            ["as it is", "tuned"], [row["as it is"], row["tuned"]], "o-", label=row["kernel"]
        )
    bottom[2].set_ylabel("held-out bits per masked byte")
    for axes in (*top, *bottom):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=6)
    common.save(figure, path)


PARTS = {"error": error, "scaling": scaling, "swap": swap}


def main() -> None:
    """Measures, prints the tables, draws the picture."""
    parser = common.parser(__doc__, "performer")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    common.start(options)
    found = {}
    for part in options.parts:
        found[part] = PARTS[part](options.folder, options.smoke)
        for rows in found[part]:
            measure.show(rows)
    draw(found, options.folder / "performer.png")


if __name__ == "__main__":
    main()

"""DeepNet's claims at small size: does a stack of 1,000 layers train, and what does depth cost?

    python -m experiments.deepnet [--parts training update memory] [--smoke]

training: 1,000 layers on the standard library's text (`configs/masked_lm.py:deepnet`), DeepNorm
beside post-norm, and a Perceiver with 100 layers on its latents, pre-norm too; same data,
optimiser, steps and seed.

update: ||F(x, theta*) - F(x, theta)|| against depth (DeepNet, section 4 and figure 5), where F are
the features behind the last layer for a batch x of text, ||.|| their root mean square, and theta*
is theta after one step of gradient descent on the bytes hidden in x. It is measured for some kinds
of parameters at a time. "weights" are those of theorem 4.2: of values and attention outputs, and of
MLPs. The theorem bounds what their updates do by

  sum over branches i of sqrt(v_i^2 + w_i^2) / alpha * ||theta_i* - theta_i||,

evaluated with the actual updates: v_i = w_i = beta, the gain that both matrices of a branch start
from (1 in a post-norm stack). It is derived for one channel and without biases; of 32 channels it
holds up to a constant.

memory: temporary memory of a gradient against depth, for each choice of remat, by the compiler's
account, beside parameters and their gradients. Nothing is run.
"""

import pathlib
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from configs import masked_lm
from experiments import common
from perceiver.model.processor import REMAT, Processor, is_stacked
from perceiver.nn.residual import ResidualConnection, residual_connection
from train import experiment, loop
from train.report import metrics_log
from train.run.window import NonFiniteError

TRIALS = (  # model, residual, learning rate, steps
    ("transformer", "deepnorm", 5e-3, 400),
    ("transformer", "post_norm", 5e-3, 400),
    ("transformer", "post_norm", 5e-4, 200),
    ("perceiver", "deepnorm", 5e-3, 400),
    ("perceiver", "post_norm", 5e-3, 400),
    ("perceiver", "pre_norm", 5e-3, 400),
)
_WIDTHS = ("embedding_channels", "latent_channels", "cross_qk_channels", "cross_v_channels")
_LATENT_STACK = {  # of the Perceiver: a narrow one of 100 layers
    **dict.fromkeys((*_WIDTHS, "self_qk_channels", "query_qk_channels"), 32),
    **dict.fromkeys(("cross_heads", "self_heads", "query_heads"), 2),
    "max_length": 16,
    "latents": 16,
    "layers": 100,
    "remat": "sqrt",
}
DEPTHS = (6, 12, 25, 50, 100, 200, 500, 1000)  # of updates
KINDS = ("weights", "queries", "biases", "norms")  # of a stack's parameters; queries: keys too
RATE = 0.01  # of gradient descent
MEMORY_DEPTHS = (64, 256, 1024, 4096)
COLOURS = {"deepnorm": "#1f6fb4", "post_norm": "#d9541e", "pre_norm": "#2e8b57"}

Rows = list[dict[str, Any]]


def config_of(model: str, residual: str, rate: float, steps: int, *, smoke: bool = False) -> Any:
    """Returns `configs/masked_lm.py:deepnet` with what a trial changes; all else is the same."""
    option = ",smoke" if smoke else ""
    config = masked_lm.get_config("deepnet" + option)
    if model == "perceiver":
        config.model = masked_lm.get_config("embedded" + option).model
        if not smoke:
            config.model.update(_LATENT_STACK)
            config.data.seq_len = config.model.get_ref("max_length")
    config.model.residual, config.optim.lr = residual, rate
    if not smoke:
        config.train.steps = steps
    return config


def training(folder: pathlib.Path, smoke: bool) -> Rows:
    """Trains all trials and returns held-out bits and where a run broke off."""
    rows = []
    for trial in TRIALS[: 1 if smoke else None]:
        model, residual, rate, _ = trial
        run, config, broke = (
            folder / "-".join(map(str, trial[:3])),
            config_of(*trial, smoke=smoke),
            "",
        )
        try:
            loop.run(config, run)
        except NonFiniteError as error:
            broke = str(error)
        lines = [x for x in metrics_log.read(run / "metrics.jsonl") if x.get("validation/bits")]
        row = {"model": model, "layers": config.model.layers, "residual": residual, "rate": rate}
        row |= {f"bits at {x['step']:,}": x["validation/bits"] for x in lines}
        if lines:
            row |= {n: lines[-1][f"validation/{n}/bits"] for n in ("unigram", "bigram")}
        rows.append(row | {"broke off": broke or None})
    return rows


def update(folder: pathlib.Path, smoke: bool) -> Rows:
    """Updates fresh models of all depths; `folder` is not used."""
    depths, residuals = (DEPTHS[:1], ["deepnorm"]) if smoke else (DEPTHS, ["post_norm", "deepnorm"])
    return [
        {"residual": residual, "layers": layers} | _update(residual, layers)
        for residual in residuals
        for layers in depths
    ]


def _update(residual: str, layers: int) -> dict[str, float]:
    """Measures a model of `configs/masked_lm.py:deepnet`, but with norms that learn.

    And with an embedding a fifth as large, so that no logit dominates the gradient.
    """
    config = masked_lm.get_config("deepnet")
    config.model.update(residual=residual, layers=layers, norm_learned=True, remat="layer")
    config.model.embedding_scale = 0.1
    parts = experiment.make(config)
    model = parts.task.model
    batch = {name: x[: config.data.batch_size] for name, x in parts.first_batch().items()}

    @jax.jit
    def run(key):
        params, state = model.init(key)
        stack = {path: leaves for path, leaves in params.items() if is_stacked(path)}

        def features(stack):
            return model.encode(params | stack, state, batch).astype(jnp.float32)

        def loss(stack):
            sums, _ = parts.task.loss(params | stack, state, None, batch, is_training=False)
            return sums["loss"][0] / sums["loss"][1]

        after = jax.tree.map(lambda x, g: x - RATE * g, stack, jax.grad(loss)(stack))
        before = features(stack)

        def change(chosen):  # [kinds] of 1 or 0
            mixed = {
                path: {
                    name: x + chosen[KINDS.index(kind(path, name))] * (after[path][name] - x)
                    for name, x in leaves.items()
                }
                for path, leaves in stack.items()
            }
            return _size(features(mixed) - before)

        changes = jax.lax.map(change, jnp.concatenate([jnp.eye(4), jnp.ones((1, 4))]))
        found = dict(zip((*KINDS, "all"), changes, strict=True))
        found["bound on weights"] = bound(stack, after, model.spec.residual_connection)
        return found | {"spread": _size(before - before.mean(axis=1, keepdims=True))}

    return jax.tree.map(float, run(jax.random.key(0)))


def bound(before: Any, after: Any, residual: ResidualConnection) -> jax.Array:
    """Returns the bound of theorem 4.2 on what a stack's updated weights do, see above."""
    gain = 1.0 if residual.beta is None else residual.beta
    squares: dict[str, Any] = {"attend": 0.0, "feed_forward": 0.0}  # of each layer: [L]
    for path, leaves in before.items():
        for name, x in leaves.items():
            if kind(path, name) == "weights":
                branch = next(part for part in squares if f"/{part}/" in path)
                squares[branch] += jnp.sum((after[path][name] - x) ** 2, axis=(1, 2))
    norms = sum(jnp.sqrt(x).sum() for x in squares.values())
    return (2 * gain**2) ** 0.5 / residual.alpha * norms


def kind(path: str, name: str) -> str:
    """Returns which of KINDS an array of a stack is."""
    if name in ("scale", "offset"):
        return "norms"
    if name == "b":
        return "biases"
    return "queries" if path.endswith(("/query", "/key")) else "weights"


def _size(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(x**2))


def memory(folder: pathlib.Path, smoke: bool) -> Rows:
    """Compiles gradients of DeepNorm stacks of all depths; `folder` is not used."""
    depths, remats = ((4, 16, 64), ["sqrt"]) if smoke else (MEMORY_DEPTHS, REMAT)
    rows = []
    for remat in remats:
        found = {}
        for layers in depths:
            how = {"heads": 2, "remat": remat, "residual": residual_connection("deepnorm", layers)}
            stack = hk.transform(lambda x, n=layers, how=how: Processor(layers=n, **how)(x))
            x = jax.ShapeDtypeStruct((16, 16, 32), jnp.float32)
            params = jax.eval_shape(stack.init, jax.random.key(0), x)
            gradient = jax.grad(lambda p, x, stack=stack: stack.apply(p, None, x).sum())
            found[layers] = measure.compile_program(gradient, params, x).temp_mib
        row = {"remat": remat} | {f"{n:,} layers, MiB": x for n, x in found.items()}
        rows.append(row | {"exponent": exponent(found)})
    return rows


def exponent(sizes: dict[int, float]) -> float:
    """Returns p of memory a + b L^p in the depth L, by least squares over the increments.

    The increment from each depth to the next is free of a, what a single layer takes at work. The
    depths must grow by the same factor.
    """
    increments = np.diff([*sizes.values()])
    return float(np.polyfit(np.log([*sizes][1:]), np.log(increments), 1)[0])


def draw(found: dict[str, Rows], path: pathlib.Path) -> None:
    """Draws three panels; one whose part was not run stays empty."""
    figure = common.figure(15, 4.6)
    curves, updates, sizes = figure.subplots(1, 3)
    for row in found.get("training", []):
        if row["model"] == "transformer":
            label = f"{row['residual']}, lr {row['rate']:g}"
            points = {int(k[8:].replace(",", "")): x for k, x in row.items() if k[:8] == "bits at "}
            curves.plot([*points], [*points.values()], "o-", label=label)
    curves.set(xlabel="step", ylabel="held-out bits per masked byte")
    for residual in ("post_norm", "deepnorm"):
        own = [row for row in found.get("update", []) if row["residual"] == residual]
        for name, style in (("weights", "o-"), ("norms", "s:"), ("bound on weights", "--")):
            x, y = [row["layers"] for row in own], [row[name] for row in own]
            updates.loglog(x, y, style, color=COLOURS[residual], label=f"{residual}, {name}")
    updates.set(xlabel="layers", ylabel="change of the features by one step of descent")
    for row in found.get("memory", []):
        points = {k: x for k, x in row.items() if k.endswith("MiB")}
        x = [int(k.split()[0].replace(",", "")) for k in points]
        sizes.loglog(x, [*points.values()], "o-", label=f"remat {row['remat']}")
    sizes.set(xlabel="layers", ylabel="temporary memory of a gradient, MiB")
    for axes in (curves, updates, sizes):
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize="small")
    common.save(figure, path)


PARTS = {"training": training, "update": update, "memory": memory}


def main() -> None:
    """Measures what was asked for, prints the tables, draws the picture."""
    parser = common.parser(__doc__, "deepnet")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    common.start(options)
    found = {}
    for part in options.parts:
        found[part] = PARTS[part](options.folder, options.smoke)
        measure.show(found[part])
    draw(found, options.folder / "deepnet.png")


if __name__ == "__main__":
    main()

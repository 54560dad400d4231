"""Whole models, forward and gradient, against the dense form.

    python -m benchmarks.models [--parts PART ...] [--rounds 3] [--batch 1] [--smoke]

PART:
  forward   Perceiver IO ImageNet and masked language model, float32 and bfloat16 operands
  gradient  Perceiver ImageNet with 8 cross-attends, loss and gradient without the optimiser; of its
            stages (a cross-attend and six layers) --stages 2, since the dense form, whose layers
            are written out, takes minutes to compile with all 8
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import data
import perceiver
from benchmarks import attention, measure
from configs import common
from perceiver.kinds import released, specs
from perceiver.model.processor import is_stacked
from perceiver.nn.positions import SeparableFourier
from train import step, tasks
from train.objective import losses
from train.optim import optimizers as optimisers

CLASSICAL, IMAGENET, TEXT = "perceiver-imagenet", "imagenet-fourier", "masked-lm-bytes"
IDS = 256  # token ids are drawn below this
_TINY = {"latents": 13, "latent_channels": 16, "layers": 2, "self_heads": 2}
_TINY_KIND = {
    "image_classifier": {"image_shape": (7, 5, 3), "classes": 11, "bands": 2},
    "masked_lm": {
        **dict.fromkeys(("embedding_channels", "cross_v_channels"), 16),
        **dict.fromkeys(("cross_qk_channels", "self_qk_channels", "query_qk_channels"), 8),
        "max_length": 17,
        "cross_heads": 2,
        "query_heads": 2,
    },
}


def get_spec(name: str, *, smoke: bool = False, **changes: Any) -> specs.Spec:
    """Returns a released model's spec with changes; with `smoke`, of the same form but tiny."""
    spec = released.MODELS[name]
    tiny = _TINY | _TINY_KIND[spec["kind"]] if smoke else {}
    if smoke and "blocks" in spec:
        tiny |= {"blocks": 2, "query_channels": 8}
    return specs.parse(spec | tiny | changes)


class Step(NamedTuple):
    """A training step as the trainer builds it: forward, backward and the optimiser."""

    run: Callable  # (state, batch) -> (state, sums), on one device
    make_run: Callable[..., Callable]  # what `Placement.compile_train` takes
    init: Callable[[], step.TrainState]
    batch: dict[str, jax.ShapeDtypeStruct]

    @property
    def state(self) -> Any:
        """The state's shapes."""
        return jax.eval_shape(self.init)


def make_step(
    spec: specs.Spec,
    batch_size: int,
    *,
    optim: Mapping[str, Any] | None = None,
    sequence: perceiver.Sequence | None = None,
) -> Step:
    """Builds a training step.

    Args:
      spec: of an image classifier or a masked language model.
      batch_size: examples.
      optim: fields of the config's `optim` section to change; without, LAMB in the papers' order.
      sequence: the mesh axis that splits the elements of an example, if any.
    """
    per_example = {"mask": ((), jnp.bool_)}
    if isinstance(spec, specs.ImageClassifier):
        kind, classes = "classification", tuple(map(str, range(spec.classes)))
        facts = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "image_shape": spec.image_shape}
        info = data.DatasetInfo(name="benchmark", examples={}, labels=classes, **facts)
        per_example["label"] = ((), jnp.int32)
    else:
        kind, info = "masked_lm", data.DatasetInfo(name="benchmark", examples={})
        per_example["targets"] = ((spec.max_length,), jnp.int32)
        per_example["target_mask"] = ((spec.max_length,), jnp.bool_)
    config = common.get_config(kind, spec.to_dict())
    config.optim.update({"steps": config.train.steps} | (optim or {}))
    config.data.seq_len = getattr(spec, "max_length", config.data.seq_len)
    task, optimizer = tasks.make(config, info, sequence), optimisers.make(config.optim)
    batch = task.model.example_inputs(batch_size) | {
        key: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
        for key, (shape, dtype) in per_example.items()
    }
    init = functools.partial(step.init_state, task, optimizer, 0, batch)
    make_run = functools.partial(step.make_train_step, task, optimizer, seed=0)
    return Step(make_run(), make_run, init, batch)


# The dense form of whole models, its layers written out one after another.


def unstack(params: attention.Params) -> attention.Params:
    """Cuts stacked layer weights apart: `.../layers/x` of [L, ...] becomes `.../layers_0/x`, ..."""
    apart = {}
    for path, arrays in params.items():
        if not is_stacked(path):
            apart[path] = arrays
            continue
        for layer in range(next(iter(arrays.values())).shape[0]):
            of_layer = {name: array[layer] for name, array in arrays.items()}
            apart[path.replace("/layers/", f"/layers_{layer}/")] = of_layer
    return apart


def dense(spec: specs.Spec) -> Callable[[attention.Params, dict[str, jax.Array]], jax.Array]:
    """Returns f(unstacked parameters, `dense_inputs`) -> logits; of images, with Fourier pixels."""
    if isinstance(spec, specs.MaskedLM):
        return lambda params, inputs: _masked_lm(params, spec, **inputs)
    return lambda params, inputs: _image_classifier(params, spec, **inputs)


def dense_inputs(spec: specs.Spec, inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns what `dense`'s function takes: of a classifier, also the table of positions."""
    if isinstance(spec, specs.MaskedLM):
        return {name: inputs[name] for name in ("tokens", "input_mask")}
    dims, resolution = spec.image_shape[:2], spec.max_resolution or None
    table = SeparableFourier.of_grid(dims, bands=spec.bands, max_resolution=resolution).dense()
    return {"image": inputs["image"], "positions": table}


def _encode(params, spec, x, mask=None) -> jax.Array:  # [B, M, C] -> [B, N, D]
    latents = _for_each(params["latents"]["table"], len(x))
    for encoder, processor in spec.sharing.stages:
        name = f"encoder{f'_{encoder}' if encoder else ''}/cross_attend"
        how = {"heads": spec.cross_heads, "mask": mask}
        latents = attention.cross_attend(params, name, latents, x, **how)
        name = f"processor{f'_{processor}' if processor else ''}"
        for layer in list(range(spec.layers)) * spec.blocks:
            at = f"{name}/layers_{layer}/self_attend"
            latents = attention.self_attend(params, at, latents, heads=spec.self_heads)
    return latents


def _image_classifier(params, spec, image, positions) -> jax.Array:  # -> [B, K]
    batch = len(image)
    inputs = [image.reshape(batch, len(positions), -1), _for_each(positions, batch)]
    latents = _encode(params, spec, jnp.concatenate(inputs, axis=-1))
    if spec.head == "mean":
        return attention.linear(params, "outputs/logits", latents.mean(axis=1))
    queries = _for_each(params["outputs/queries"]["table"], batch)
    how = {"heads": spec.query_heads, "residual": spec.query_residual}
    return attention.decode(params, "outputs/decoder", queries, latents, **how)[:, 0]


def _masked_lm(params, spec, tokens, input_mask) -> jax.Array:  # -> [B, M, K]
    (batch, length), table = tokens.shape, params["embedding"]["table"]
    positions, queries = (
        _for_each(params[name]["table"][:length], batch)
        for name in ("inputs/positions", "outputs/queries")
    )
    latents = _encode(params, spec, jnp.take(table, tokens, axis=0) + positions, input_mask)
    how = {"heads": spec.query_heads, "residual": spec.query_residual, "query_mask": input_mask}
    y = attention.decode(params, "outputs/decoder", queries, latents, **how)
    logits = jnp.einsum("bme,ke->bmk", y, table)
    return logits + jnp.broadcast_to(params["outputs"]["b"], logits.shape)


def _for_each(table: jax.Array, batch: int) -> jax.Array:  # [N, C] -> [B, N, C]
    return jnp.broadcast_to(table[None], (batch, *table.shape))


# What is measured.


def contenders(spec: specs.Spec, batch: int) -> dict[str, tuple[Callable, tuple]]:
    """Returns f(params, inputs) -> logits in each form, with its arguments."""
    model = perceiver.build(spec)
    params = measure.draw_params(jax.eval_shape(model.init, jax.random.key(0))[0])
    inputs = measure.draw_batch(model.example_inputs(batch), highest=IDS)
    found = {"dense": (dense(spec), (unstack(params), dense_inputs(spec, inputs)))}
    for operands in ("float32", "bfloat16"):
        model = perceiver.build(dataclasses.replace(spec, operands=operands))

        def logits(params, inputs, model=model):
            return model.apply(params, {}, None, inputs)[0]

        found[f"library, {operands}"] = (logits, (params, inputs))
    return found


def _gradient(logits: Callable) -> Callable:
    """Returns the mean cross-entropy with all labels 0, and the norm of its gradient."""

    def loss(params, inputs):
        found = logits(params, inputs)
        return losses.softmax_cross_entropy(found, jnp.zeros(len(found), jnp.int32)).mean()

    def run(params, inputs):
        value, gradient = jax.value_and_grad(loss)(params, inputs)
        return value, jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(gradient)))

    return run


def _rows(name: str, spec: specs.Spec, work: str, options: argparse.Namespace):
    made = contenders(spec, options.batch)
    if work == "gradient":
        made = {form: (_gradient(logits), given) for form, (logits, given) in made.items()}
    found = measure.compare(made, rounds=options.rounds, memory_gib=12)
    case = {"case": f"{name}, batch {options.batch}", "work": work}
    return [case | {"form": form} | row for form, row in found.items()]


def forward(options: argparse.Namespace) -> list[measure.Row]:
    """Returns the rows of both models' forward pass."""
    given = [(name, get_spec(name, smoke=options.smoke)) for name in (IMAGENET, TEXT)]
    return [row for name, spec in given for row in _rows(name, spec, "forward", options)]


def gradient(options: argparse.Namespace) -> list[measure.Row]:
    """Returns the rows of the classical Perceiver's loss and gradient."""
    spec = get_spec(CLASSICAL, smoke=options.smoke)
    count, stages = len(spec.encoders), options.stages
    sharing = {"encoders": spec.encoders[:stages], "processors": spec.processors[:stages]}
    spec = dataclasses.replace(spec, **sharing)
    return _rows(f"{CLASSICAL}, {stages} of {count} stages", spec, "gradient", options)


def dense_gradient_mib(spec: specs.ImageClassifier, batch: int) -> float:
    """Returns the temporary memory of the dense loss and gradient, compiled for abstract arrays."""

    def arguments():
        params, _ = perceiver.build(spec).init(jax.random.key(0))
        images = jnp.zeros((batch, *spec.image_shape))
        return unstack(params), dense_inputs(spec, {"image": images})

    made = measure.compile_program(_gradient(dense(spec)), *jax.eval_shape(arguments))
    return made.temp_mib


PARTS = {"forward": forward, "gradient": gradient}


def main() -> None:
    """Prints a table for each part."""
    parser = measure.parser(__doc__, parts=PARTS)
    parser.add_argument("--batch", type=int, default=1, help="of forward and gradient")
    parser.add_argument("--stages", type=int, default=2, help="of gradient, 8 at most")
    options = parser.parse_args()
    measure.start(options)
    for part in options.parts:
        measure.show(PARTS[part](options))


if __name__ == "__main__":
    main()

"""Whole models: forward and gradient against the dense form, memory and compile time of training.

    python -m benchmarks.models [NAME ...] [--json FILE] [--smoke] [--rounds 3] [--batch 1]
    python -m benchmarks.models --resident [--remat layer]

NAME, all of them without any:
  forward    Perceiver IO ImageNet and masked language model, float32 and bfloat16 operands
  gradient   Perceiver ImageNet with 8 cross-attends, loss and gradient without the optimiser; of
             its stages (a cross-attend and six layers) `--stages` 2, since the dense form, whose
             layers are written out, takes minutes to compile with all 8
  training   Perceiver IO ImageNet, batch 2: temporary memory of the training step under each remat
             policy, LAMB included, beside the dense form's loss and gradient alone. That is
             extrapolated from 1 and 2 of its 8 blocks (compiled, 4 blocks met that to 0.1 %), or
             compiled in full with `--exact`, which takes minutes and 10 GiB
  resident   Perceiver ImageNet with 8 cross-attends, batch 2: two real training steps with LAMB in
             a process of their own, and the most memory that it ever held
"""

import argparse
import dataclasses
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
from perceiver.processor import REMAT

import perceiver
from benchmarks import dense, draw, floor, measure, steps, table
from benchmarks.forms import DENSE, Contenders, Form, compare
from perceiver import released, specs
from train import losses

OURS = (Form("auto"), Form("auto", "bfloat16"))
CLASSICAL, IMAGENET, TEXT = "perceiver-imagenet", "imagenet-fourier", "masked-lm-bytes"
TRAINING_BATCH = 2
_IDS = 256  # token ids are drawn below this
_TINY = {"latents": 13, "latent_channels": 16, "layers": 2, "self_heads": 2}
_TINY_KIND = {
    "image_classifier": {"image_shape": (7, 5, 3), "classes": 11, "bands": 2},
    "masked_lm": {
        "max_length": 17,
        "embedding_channels": 16,
        "cross_heads": 2,
        "cross_qk_channels": 8,
        "cross_v_channels": 16,
        "self_qk_channels": 8,
        "query_heads": 2,
        "query_qk_channels": 8,
    },
}


def get_spec(name: str, options: argparse.Namespace, **changes: Any) -> specs.Backbone:
    """Returns a released model's spec with changes; with `--smoke`, of the same form but tiny."""
    spec = released.MODELS[name]
    tiny = _TINY | _TINY_KIND[spec["kind"]] if options.smoke else {}
    if options.smoke and "blocks" in spec:
        tiny |= {"blocks": 3, "query_channels": 8}
    return specs.parse(spec | tiny | changes)


def measure_forward(options: argparse.Namespace) -> list[table.Row]:
    """Returns the rows of both models' forward pass."""
    rows = []
    for name in (IMAGENET, TEXT):
        spec = get_spec(name, options)
        labels = {"case": f"{name}, batch {options.batch}", "work": "forward"}
        rows += _compare(spec, _contenders(spec, options.batch), options, **labels)
    return rows


def measure_gradient(options: argparse.Namespace) -> list[table.Row]:
    """Returns the rows of the classical Perceiver's loss and gradient."""
    whole = get_spec(CLASSICAL, options)
    count = len(whole.encoders)
    spec = _with_stages(whole, min(options.stages, count))
    contenders = {
        form: (_gradient(logits), (*arguments, _labels(spec, options.batch)))
        for form, (logits, arguments) in _contenders(spec, options.batch).items()
    }
    case = f"{CLASSICAL}, {len(spec.encoders)} of {count} stages, batch {options.batch}"
    return _compare(spec, contenders, options, case=case, work="gradient")


def measure_training(options: argparse.Namespace) -> list[table.Row]:
    """Returns the rows of temporary memory and compile time; nothing is run."""
    case = f"{IMAGENET}, batch {TRAINING_BATCH}"
    baseline = dense_memory(get_spec(IMAGENET, options), exact=options.exact)
    rows = [table.Row(case=case, work="gradient", form="dense", **baseline)]
    for remat in REMAT:
        step = steps.make(get_spec(IMAGENET, options, remat=remat).to_dict(), TRAINING_BATCH)
        program = measure.compile_program(step.run, step.state, step.batch, donate=(0,))
        row = table.Row(
            case=case,
            work="training step",
            form=f"remat {remat}",
            temp_mib=program.temp_mib,
            temp_ratio=baseline["temp_mib"] / program.temp_mib,
            compile_s=program.seconds,
        )
        rows.append(row)
    return rows


def dense_memory(spec: specs.ImageClassifier, *, exact: bool) -> dict[str, Any]:
    """Returns a row's fields of the dense gradient's memory, of all blocks or extrapolated."""
    if exact:
        program = _dense_gradient(spec)
        return {"temp_mib": program.temp_mib, "compile_s": program.seconds}
    one, two = (_dense_gradient(dataclasses.replace(spec, blocks=n)).temp_mib for n in (1, 2))
    temp = one + (spec.blocks - 1) * (two - one)
    return {"temp_mib": temp, "note": f"extrapolated from 1 and 2 of {spec.blocks} blocks"}


def measure_resident(options: argparse.Namespace) -> list[table.Row]:
    """Starts `--resident` in a process of its own."""
    words = ["--resident", "--remat", options.remat] + (["--smoke"] if options.smoke else [])
    found = measure.in_fresh_process("benchmarks.models", *words)
    case = f"{CLASSICAL}, batch {TRAINING_BATCH}, own process"
    return [table.Row(case=case, work="training step", form=f"remat {options.remat}", **found)]


MEASURES = {
    "forward": measure_forward,
    "gradient": measure_gradient,
    "training": measure_training,
    "resident": measure_resident,
}


def resident(options: argparse.Namespace) -> dict[str, float]:
    """Takes two training steps and returns the second's seconds and the peak of this process."""
    spec = get_spec(CLASSICAL, options, remat=options.remat)
    step = steps.make(spec.to_dict(), TRAINING_BATCH)
    run = jax.jit(step.run, donate_argnums=0)
    batch = draw.batch(step.batch, highest=spec.classes)
    state, _ = jax.block_until_ready(run(jax.jit(step.init)(), batch))
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(run(state, batch))
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "resident_mib": measure.peak_resident_mib(),
    }


def _compare(spec, contenders: Contenders, options, **labels) -> list[table.Row]:
    def gflop(form):
        form = "dense" if form == "dense" else "least"
        return floor.model(spec, form, labels["work"], options.batch)

    return compare(contenders, gflop=gflop, options=options, **labels)


def _contenders(spec: specs.Backbone, batch: int) -> Contenders:
    """Returns f(params, inputs) -> logits in each form, with its arguments."""
    model = perceiver.build(spec)
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    params = draw.params(params)
    inputs = draw.batch(model.example_inputs(batch), highest=_IDS)
    found = {DENSE: (dense.build(spec), (dense.unstack(params), dense.prepare(spec, inputs)))}
    for form in OURS:
        model = perceiver.build(dataclasses.replace(spec, operands=form.dtype))
        found[form] = (_logits(model), (params, inputs))
    return found


def _logits(model: perceiver.Model):
    return lambda params, inputs: model.apply(params, {}, None, inputs)[0]


def _gradient(logits):
    """Returns f(params, inputs, labels): the mean cross-entropy and its gradient."""

    def loss(params, inputs, labels):
        return losses.softmax_cross_entropy(logits(params, inputs), labels).mean()

    return jax.value_and_grad(loss)


def _labels(spec: specs.ImageClassifier, batch: int) -> jax.Array:
    return jnp.arange(batch) % spec.classes


def _with_stages(spec: specs.Backbone, stages: int) -> specs.Backbone:
    sharing = {"encoders": spec.encoders[:stages], "processors": spec.processors[:stages]}
    return dataclasses.replace(spec, **sharing)


def _dense_gradient(spec: specs.ImageClassifier) -> measure.Program:
    """Compiles the dense loss and gradient for abstract arrays."""

    def arguments():
        params, _ = perceiver.build(spec).init(jax.random.key(0))
        inputs = {"image": jnp.zeros((TRAINING_BATCH, *spec.image_shape))}
        labels = _labels(spec, TRAINING_BATCH)
        return dense.unstack(params), dense.prepare(spec, inputs), labels

    return measure.compile_program(_gradient(dense.build(spec)), *jax.eval_shape(arguments))


def main() -> None:
    """Prints a block of rows per name."""
    parser = table.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--batch", type=int, default=1, help="of forward and gradient")
    parser.add_argument("--stages", type=int, default=2, help="of gradient, 8 at most")
    parser.add_argument("--exact", action="store_true", help="training: compile all dense layers")
    parser.add_argument("--memory", type=float, default=12, help="GiB that a program may take")
    parser.add_argument("--remat", choices=REMAT, default="layer", help="of resident")
    parser.add_argument("--resident", action="store_true", help="two steps in this very process")
    options = parser.parse_args()
    if options.resident:
        print(json.dumps(resident(options)))
        return
    report = table.Report(options)
    for name in table.chosen(MEASURES, options.names):
        report.add(*MEASURES[name](options))
    report.write("models")


if __name__ == "__main__":
    main()

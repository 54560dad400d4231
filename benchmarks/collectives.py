"""What a training step exchanges on 8 devices, read from the compiled program, beside the theory.

    python -m benchmarks.collectives [NAME ...] [--rows 1] [--remat dots] [--json FILE] [--smoke]

NAME: masked-lm-bytes, imagenet-fourier (default: both), at full size, each in every placement. The
real training step, LAMB included, is compiled ahead of time for 8 virtual CPU devices; nothing is
run, and no figure is a speed. The step is traced as for an accelerator, where cross-attends take
larger chunks.

All bytes are of one device and one step, with --rows examples on each device (or on each group of
devices that splits the elements of an example). "Gathered" and "reduced" are the arrays that
all-gathers and all-reduces (or reduce-scatters) are about, "other" those of the rest; "sent" is
what a ring sends for them (`benchmarks/hlo.py`). The theory is that of `expected`; "least" is the
same with a reduce-scatter where XLA's CPU compiler, which makes none, has an all-reduce. XLA for
TPUs and GPUs has a pass that does; that it finds all of these is not shown here.
"""

import argparse
import functools
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from unittest import mock

DEVICES = 8
_FLAG = "--xla_force_host_platform_device_count"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):  # before JAX is imported
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}={DEVICES}".strip()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from perceiver.processor import REMAT, is_stacked  # noqa: E402

import perceiver  # noqa: E402
from benchmarks import hlo, models, steps, table  # noqa: E402
from benchmarks.measure import MIB  # noqa: E402
from perceiver import released, specs  # noqa: E402
from perceiver.summary import byte_array_shapes  # noqa: E402
from train import placement, sharding  # noqa: E402

NAMES = ("masked-lm-bytes", "imagenet-fourier")
# label -> (placement, sizes of the mesh's axes)
PLACEMENTS = {
    "pmap": ("pmap", None),
    "fsdp 8": ("sharded", {"data": 1, "fsdp": 8, "sequence": 1}),
    "data 2 x fsdp 4": ("sharded", {"data": 2, "fsdp": 4, "sequence": 1}),
    "sequence 8": ("sharded", {"data": 1, "fsdp": 1, "sequence": 8}),
}


class Exchange(NamedTuple):
    """Bytes of one step."""

    gathered: float  # arrays that are gathered
    reduced: float  # arrays that are summed over devices
    other: float
    sent: float  # by each device

    @classmethod
    def of(cls, found: Sequence[hlo.Collective]) -> "Exchange":
        """Adds up a program's collectives."""

        def payload(*kinds):
            return float(sum(x.payload * x.times for x in found if x.kind in kinds))

        gathered, reduced = payload("all-gather"), payload("all-reduce", "reduce-scatter")
        other = payload(*hlo.KINDS) - gathered - reduced
        return cls(gathered, reduced, other, sum(x.wire for x in found))


class Program(NamedTuple):
    """A training step compiled for a placement."""

    text: str
    state: Any  # abstract, with shardings
    mesh: dict[str, int]
    rows: int  # examples of each group of devices that share them
    seconds: float  # of tracing and compiling
    temp_mib: float  # of each device, by XLA's account


def compile_step(
    spec: specs.Spec,
    name: str,
    mesh: dict[str, int] | None,
    rows: int = 1,
    micro_batches: int = 1,
) -> Program:
    """Compiles a training step for all devices, without running it.

    Args:
      spec: of the model.
      name: of the placement.
      mesh: sizes of the axes of "sharded".
      rows: examples of each device, or of each group that splits their elements.
      micro_batches: pieces that they are worked through in.
    """
    layout = placement.make(name, mesh)
    batch = rows * layout.devices // layout.mesh.shape.get("sequence", 1)
    step = steps.make(spec.to_dict(), batch, sequence=layout.sequence)
    state = layout.abstract(step.init)
    inputs = layout.put({k: np.zeros(x.shape, x.dtype) for k, x in step.batch.items()})
    began = time.perf_counter()
    make_run = functools.partial(step.make_run, micro_batches=micro_batches)
    with mock.patch.object(jax, "default_backend", return_value="tpu"):
        lowered = layout.compile_train(make_run).lower(state, inputs)
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    temp = compiled.memory_analysis().temp_size_in_bytes / MIB
    return Program(compiled.as_text(), state, dict(layout.mesh.shape), rows, seconds, temp)


def expected(program: Program, spec: specs.Backbone, *, scatters: bool) -> Exchange:
    """Returns what the placement is bound to exchange.

    Data parallelism all-reduces each gradient once. FSDP gathers each parameter at every use
    (weights that blocks or stages share are used several times), once more where the backward pass
    forms a layer anew, and sums the gradient of every use: within fsdp, and of each part over data.
    The devices of a sequence compute all but the cross-attends alike.

    Args:
      program: for the state's shapes and their splits.
      spec: says how often weights are used, and what is formed anew.
      scatters: whether gradients that stay in parts are reduce-scattered within fsdp, or, as XLA
        does for CPUs, all-reduced.
    """
    gathered = reduced = sent = 0.0
    replicas = program.mesh.get("data", 1) * program.mesh.get("fsdp", 1)
    for row in sharding.sharding_table(program.state):
        if not row.path.startswith("params/"):
            continue
        size, parts = row.bytes_total, row.bytes_total // row.bytes_per_device
        copies = replicas // parts
        reads, uses = exchanges(row.path.removeprefix("params/"), spec)
        uses = uses if "fsdp" in program.mesh else 1
        if parts > 1:
            gathered += reads * size
            reduced += uses * size
            sent += (reads + uses * (1 if scatters else 2)) * _ring(parts) * size
        if copies > 1:
            reduced += uses * size / parts
            sent += uses * 2 * _ring(copies) * size / parts
    devices = program.mesh.get("sequence", 1)
    merged, positions = _split_inputs(program, spec) if devices > 1 else (0.0, 0.0)
    sent += _ring(devices) * (2 * merged + positions)
    return Exchange(gathered + positions, reduced + merged, 0.0, sent)


def _split_inputs(program: Program, spec: specs.Backbone) -> tuple[float, float]:
    """Bytes that the devices of a sequence sum, and gather, for the examples of a group.

    Each stage's merge sums a result and two numbers for each head; the backward pass sums the
    result's cotangent, the queries' gradient, and that of the weights of keys and values where the
    path forms these (`streaming`). Of the inputs' own parameters, tables of positions have their
    gradient in parts, which are gathered; the others' are summed.
    """
    model = perceiver.build(spec)
    channels = byte_array_shapes(model).channels
    qk, v = spec.cross_qk_channels or channels, spec.cross_v_channels or channels
    summed = gathered = 0
    for stage, plan in model.explain(is_training=True).items():
        if stage.startswith("stage"):
            summed += program.rows * spec.latents * (2 * v + qk + 2 * spec.cross_heads)
            summed += channels * (qk + v) if plan.choices[0].path == "streaming" else 0
    for row in sharding.sharding_table(program.state):
        if row.path.startswith("params/inputs/positions"):
            gathered += row.bytes_total // 4
        elif row.path.startswith(("params/inputs", "params/embedding")):
            summed += row.bytes_total // 4
    return 4.0 * summed, 4.0 * gathered


def _ring(devices: int) -> float:
    return (devices - 1) / devices


def exchanges(path: str, spec: specs.Backbone) -> tuple[int, int]:
    """Returns how often a step gathers the weights at a path, and how often it sums their gradient.

    Args:
      path: of a parameter: "encoder_1/cross_attend/...", "processor/layers/...".
      spec: of the model.
    """
    part, _, number = path.split("/")[0].partition("_")
    if part == "embedding" and isinstance(spec, specs.MaskedLM):
        return 1, 2  # by the inputs and by the outputs, which read what was gathered once
    uses = 1
    if part == "encoder":
        uses = spec.encoders.count(int(number or 0))
    elif part == "processor":
        uses = spec.processors.count(int(number or 0)) * spec.blocks
    again = is_stacked(path) and spec.remat != "none"
    return uses * (2 if again else 1), uses


def measure(spec: specs.Backbone, label: str, case: str, rows: int) -> table.Row:
    """Returns a row: a model in a placement."""
    program = compile_step(spec, *PLACEMENTS[label], rows)
    found = Exchange.of(hlo.collectives(program.text))
    theory, least = (expected(program, spec, scatters=scatters) for scatters in (False, True))
    held = sum(row.bytes_per_device for row in sharding.sharding_table(program.state))
    return table.Row(
        case=case,
        work="training step",
        form=label,
        state_mib=held / MIB,
        temp_mib=program.temp_mib,
        gathered_mib=found.gathered / MIB,
        reduced_mib=found.reduced / MIB,
        other_mib=found.other / MIB,
        sent_mib=found.sent / MIB,
        theory_mib=theory.sent / MIB,
        theory_ratio=found.sent / theory.sent if theory.sent else None,
        least_mib=least.sent / MIB,
        compile_s=program.seconds,
    )


def main() -> None:
    """Prints a row for each model and placement."""
    parser = table.parser(__doc__, rounds=1)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--rows", type=int, default=1, help="examples of each device")
    parser.add_argument("--remat", choices=REMAT, default=REMAT[0])
    options = parser.parse_args()
    report = table.Report(options)
    for name in table.chosen(NAMES, options.names):
        spec = get_spec(name, options)
        case = f"{name}, {options.rows} a device, remat {options.remat}"
        report.add(*(measure(spec, label, case, options.rows) for label in PLACEMENTS))
    report.write("collectives")


def get_spec(name: str, options: argparse.Namespace) -> specs.Backbone:
    """Returns a released model's spec; with `--smoke`, of the same form but tiny."""
    if options.smoke:
        return models.get_spec(name, options, remat=options.remat)
    return specs.parse(released.MODELS[name] | {"remat": options.remat})


if __name__ == "__main__":
    main()

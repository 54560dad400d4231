"""Growth with the number of inputs, and what a training step exchanges on several devices.

    python -m benchmarks.scaling inputs [--rounds 3] [--memory 4] [--png FILE] [--smoke]
    python -m benchmarks.scaling collectives [--models masked-lm-bytes imagenet-fourier] [--smoke]

inputs: memory and time of a cross-attend from a thousand to a million inputs, dense and the
library's: a square image of M pixels, C = 261, N = 512 latents of 1024 channels, batch 1. What
needs more temporary memory than --memory GiB is compiled, but not run.

collectives: the real training step, LAMB included, is compiled ahead of time for 8 virtual CPU
devices, with one example on each (or on each group that splits the elements of an example), and its
collectives are read from the program's text; nothing is run, and no figure is a speed. The step is
traced as for an accelerator, where cross-attends take larger chunks. All MiB are of one device and
one step. "Gathered" and "reduced" are the arrays that are gathered and summed; "sent" is what a
ring sends for these and all others. "Theory" is what the placement is bound to send (`theory`);
"least" is the same with a reduce-scatter where XLA's CPU compiler, which makes none, has an
all-reduce.
"""

import argparse
import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np

from benchmarks import attention, measure, models
from perceiver.kinds import specs
from perceiver.model.processor import is_stacked
from train.devices import placement, sharding

SIDES = (32, 64, 128, 256, 512, 1000)
TINY_SIDES = (37,)
PICTURE = pathlib.Path("runs/cross_attention_scaling.png")


def inputs(options: argparse.Namespace) -> None:
    """Prints a table for each number of inputs and draws the picture."""
    rows = []
    for side in TINY_SIDES if options.smoke else SIDES:
        shape = attention.pixels(side)
        if options.smoke:
            shape = dataclasses.replace(shape, queries=67)
        given, found = attention.arguments("encoder", shape, 1), []
        for work in attention.WORKS[:2]:
            forms = {
                form: (attention.working(attention.block("encoder", form), work), given)
                for form in ("dense", "auto")
            }
            compared = measure.compare(forms, rounds=options.rounds, memory_gib=options.memory)
            found += [{"M": shape.size, "work": work, "form": f} | r for f, r in compared.items()]
        measure.show(found)
        rows += found
    print(f"Peak memory of this process: {measure.peak_resident_mib():,.0f} MiB")
    draw(rows, options.png)
    print(f"picture: {options.png}")


def draw(rows: list[measure.Row], path: pathlib.Path) -> None:
    """Draws temporary memory and wall time against M, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    labels = {"temp MiB": "temporary memory, MiB", "wall s": "wall time, s"}
    styles = {"dense": ("dense", "#d9541e", "o"), "auto": ("this project", "#1f6fb4", "s")}
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for line, (field, label) in zip(panels, labels.items(), strict=True):
        for axes, work in zip(line, attention.WORKS, strict=False):
            for form, (name, colour, marker) in styles.items():
                own = [r for r in rows if (r["work"], r["form"]) == (work, form) and field in r]
                x, y = [row["M"] for row in own], [row[field] for row in own]
                axes.loglog(x, y, color=colour, marker=marker, label=name)
            axes.grid(alpha=0.3)
            axes.set(title=work, xlabel="inputs M", ylabel=label)
            axes.label_outer()
    panels[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


# Collectives.

DEVICES = 8
PLACEMENTS = {  # label -> (placement, sizes of the mesh's axes)
    "pmap": ("pmap", None),
    "fsdp 8": ("sharded", {"data": 1, "fsdp": 8, "sequence": 1}),
    "data 2 x fsdp 4": ("sharded", {"data": 2, "fsdp": 4, "sequence": 1}),
    "sequence 8": ("sharded", {"data": 1, "fsdp": 1, "sequence": 8}),
}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|branch_computations|true_computation|false_computation)="
    r"\{?([%\w.\-, ]+?)\}?(?=, \w+=|$)"
)
_ARRAY = re.compile(r"\b([a-z]\d*[a-z0-9]*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation of one device's program."""

    kind: str  # one of KINDS
    payload: int  # bytes of the whole array: of what is gathered, or of what is reduced
    group: int  # devices that exchange
    times: int  # how often a step does it

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step, by a ring (Patarasuk and Yuan, 2009)."""
        if self.kind == "collective-permute":
            return float(self.payload * self.times)
        rounds = 2 if self.kind == "all-reduce" else 1  # it is a reduce-scatter and an all-gather
        return rounds * _ring(self.group) * self.payload * self.times


def collectives(text: str) -> list[Collective]:
    """Reads the collectives of `compiled.as_text()`, as compiled for CPUs.

    An operation inside a loop is written once and done in each pass. Of branches all are counted.
    """
    computations: dict[str, list[str]] = {}
    entry = current = None
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif current is not None:
            current.append(line)
    if entry is None:
        raise ValueError(f"no ENTRY computation in {text[:60]!r}; give compiled.as_text()")
    return list(_walk(entry, computations))


def _walk(name: str, computations: dict[str, list[str]]) -> Iterator[Collective]:
    for line in computations[name]:
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        shape, operation, rest = found.groups()
        if operation in KINDS:
            group = 1 if operation == "collective-permute" else _group(rest)
            payload = sum(_size(*array) for array in _ARRAY.findall(shape))
            payload *= group if operation == "reduce-scatter" else 1  # whose result is a part
            yield Collective(operation, payload, group, 1)
            continue
        for names in _CALLED.findall(rest):
            inside = [x for n in names.split(",") for x in _walk(n.strip(" %"), computations)]
            passes = _passes(line) if inside and operation == "while" else 1
            yield from (dataclasses.replace(x, times=x.times * passes) for x in inside)


def _size(dtype: str, dims: str) -> int:
    bits = re.search(r"\d+", dtype)  # f32, bf16, s8; pred has none
    return math.prod(int(n) for n in dims.split(",") if n) * (int(bits[0]) if bits else 8) // 8


def _group(rest: str) -> int:
    """Returns how many devices exchange with each other, in any of XLA's notations."""
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]* \{([^}]*)\}", rest)
    if named:  # mesh['a'=4,'b'=2], device_ids=(...) {'a'}
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    if even := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):  # [groups,size]<=[devices]
        return int(even[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):  # {{0,1},{2,3}}
        return len(listed[1].split(","))
    if "replica_groups={}" in rest:
        return DEVICES
    raise ValueError(f"cannot read the groups of {rest[:200]!r}")


def _passes(line: str) -> int:
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line):
        return int(known[1])
    raise ValueError(f"a loop with collectives of unknown length: {line.strip()[:120]!r}")


def _ring(devices: int) -> float:
    return (devices - 1) / devices


def compile_step(spec: specs.Spec, label: str) -> tuple[measure.Program, Any, dict[str, int]]:
    """Returns a training step compiled for a placement, the state's shapes, and the mesh."""
    layout = placement.make(*PLACEMENTS[label])
    batch = layout.devices // layout.mesh.shape.get("sequence", 1)
    made = models.make_step(spec, batch, sequence=layout.sequence)
    state = layout.abstract(made.init)
    example = layout.put({k: np.zeros(x.shape, x.dtype) for k, x in made.batch.items()})
    with mock.patch.object(jax, "default_backend", return_value="tpu"):
        compiled = layout.compile_train(made.make_run).lower(state, example).compile()
    temp = compiled.memory_analysis().temp_size_in_bytes / measure.MIB
    return measure.Program(compiled, (), 0.0, temp), state, dict(layout.mesh.shape)


def theory(state: Any, mesh: dict[str, int], spec: specs.Spec, *, scatters: bool) -> float:
    """Returns the bytes that each device sends for parameters and gradients, by a ring.

    Data parallelism all-reduces each gradient once. FSDP gathers each parameter at every use
    (weights that blocks or stages share are used several times), once more where the backward pass
    forms a layer anew, and sums the gradient of every use: within fsdp, and of each part over data.

    Args:
      state: shapes, with their shardings.
      mesh: sizes of the axes data and fsdp.
      spec: determines how often weights are used, and what is formed anew.
      scatters: whether gradients that stay in parts are reduce-scattered within fsdp, or, as XLA
        does for CPUs, all-reduced.
    """
    sent, replicas = 0.0, mesh.get("data", 1) * mesh.get("fsdp", 1)
    for row in sharding.sharding_table(state):
        if not row.path.startswith("params/"):
            continue
        size, parts = row.bytes_total, row.bytes_total // row.bytes_per_device
        reads, uses = _uses(row.path.removeprefix("params/"), spec)
        uses = uses if "fsdp" in mesh else 1
        if parts > 1:
            sent += (reads + uses * (1 if scatters else 2)) * _ring(parts) * size
        sent += uses * 2 * _ring(replicas // parts) * size / parts
    return sent


def _uses(path: str, spec: specs.Spec) -> tuple[int, int]:
    """Returns how often a step gathers the weights at a path, and how often it sums gradients."""
    part, _, number = path.split("/")[0].partition("_")
    if part == "embedding" and isinstance(spec, specs.MaskedLM):
        return 1, 2  # by the inputs and by the outputs, which read what was gathered once
    uses = 1
    if part == "encoder":
        uses = spec.encoders.count(int(number or 0))
    elif part == "processor":
        uses = spec.processors.count(int(number or 0)) * spec.blocks
    return uses * (2 if is_stacked(path) and spec.remat != "none" else 1), uses


def exchange(options: argparse.Namespace) -> None:
    """Prints a table for each model."""
    for name in options.models:
        spec, rows = models.get_spec(name, smoke=options.smoke), []
        for label in list(PLACEMENTS)[: 1 if options.smoke else None]:
            program, state, mesh = compile_step(spec, label)
            found = collectives(program.executable.as_text())
            held = sum(row.bytes_per_device for row in sharding.sharding_table(state))
            row = {"model": name, "placement": label, "state": held, "temp MiB": program.temp_mib}
            for title, kinds in (("gathered", KINDS[:1]), ("reduced", KINDS[1:3])):
                row[title] = sum(x.payload * x.times for x in found if x.kind in kinds)
            row["sent"] = sum(x.sent for x in found)
            if label != "sequence 8":
                row["theory"] = theory(state, mesh, spec, scatters=False)
                row["least"] = theory(state, mesh, spec, scatters=True)
            in_mib = ("state", "gathered", "reduced", "sent", "theory", "least")
            rows.append({k: x / measure.MIB if k in in_mib else x for k, x in row.items()})
            if "theory" in row:
                rows[-1]["sent / theory"] = f"{row['sent'] / row['theory']:.3f}"
        measure.show(rows)


def main() -> None:
    """Runs a part."""
    parser = measure.parser(__doc__)
    parts = {"inputs": inputs, "collectives": exchange}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--memory", type=float, default=4, help="GiB that a program may take")
    parser.add_argument("--png", type=pathlib.Path, default=PICTURE, help="where to draw inputs")
    parser.add_argument("--models", nargs="+", default=[models.TEXT, models.IMAGENET])
    options = parser.parse_args()
    if options.part == "collectives" and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", DEVICES)
    measure.start(options)
    parts[options.part](options)


if __name__ == "__main__":
    main()

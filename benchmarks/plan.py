r"""Training on 256 chips, on paper: memory and time of each model, machine and placement.

    python -m benchmarks.plan                 the tables of docs/scaling.md
    python -m benchmarks.plan --compile NAME  a model's temporary memory, for `TEMP_GIB`

Arithmetic, no measurement. Time is FLOPs by the share of the peak that is assumed (`MFU`), plus
bytes by the share of the links' published speed (`LINKS`); the two are added, since the gradients
of a scan over layers are exchanged after it, when nothing is left to compute. What is sent follows
`benchmarks.collectives.expected`, which the compiled programs for 8 devices met within 1 percent
for parameters; with reduce-scatters, as XLA should make them for TPUs and GPUs.
"""

import argparse
import dataclasses
import functools
import types
from collections.abc import Iterator, Sequence
from unittest import mock

import jax
from jax.sharding import AbstractMesh, NamedSharding
from train.model_flops import flops_per_example

import perceiver
from benchmarks import collectives, measure, steps
from perceiver import released, specs
from train import hardware, sharding

CHIPS = 256
MFU = 0.4  # of dense bfloat16: what well-tuned Transformers of this size are reported to reach
LINKS = 0.7  # of the published speed
GIB = 2**30

# name -> examples of a batch: Perceiver IO, table 12 and A.1; Perceiver states none, so as A.1
BATCHES = {
    "masked-lm-bytes": 2048,
    "masked-lm-bytes-plus": 2048,
    "imagenet-fourier": 1024,
    "perceiver-imagenet": 1024,
}
# name -> temporary memory of a step on one device with batch / CHIPS examples, by XLA's account
# for a CPU: `--compile`, float32, remat dots, jax 0.10.2. Gradients are in it.
TEMP_GIB = {
    "masked-lm-bytes": 3.82,
    "masked-lm-bytes-plus": 5.84,
    "imagenet-fourier": 3.2,
    "perceiver-imagenet": 4.93,
}
PLACEMENTS = {  # label -> sizes of the mesh's axes; None: pmap
    "pmap": None,
    "fsdp 256": {"data": 1, "fsdp": 256, "sequence": 1},
    "data 32 x fsdp 8": {"data": 32, "fsdp": 8, "sequence": 1},
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """256 chips. Speeds are what a chip can send at most, in bytes a second, one direction."""

    name: str
    kind: str  # `device_kind`
    memory: float  # bytes
    near: float  # to the chips of its node; on a torus, to all
    far: float  # to chips of other nodes
    node: int  # chips

    @property
    def peak(self) -> float:
        """FLOP/s of a chip, dense bfloat16."""
        found = hardware.peak_flops(types.SimpleNamespace(device_kind=self.kind))
        assert found is not None
        return found

    def gather(self, size: float, group: int, *, across: bool = False) -> float:
        """Seconds to gather `size` bytes of which each of `group` chips has a part.

        With several nodes, each chip first collects what lies in its place in the other nodes, and
        the node then exchanges that. A reduce-scatter is the same backwards; an all-reduce is both.

        Args:
          size: bytes of the whole.
          group: chips.
          across: whether each of them is in another node.
        """
        near = 1 if across else min(group, self.node)
        far = group // near
        seconds = (far - 1) / far * size / near / self.far + (near - 1) / near * size / self.near
        return seconds / LINKS


# Google's Cloud TPU documentation (v5e, v5p): HBM, and "bidirectional ICI bandwidth per chip" 400
# and 1,200 GB/s, of which half is one direction; all links of the torus are taken to be used.
# NVIDIA DGX H100 data sheet: NVLink 900 GB/s, both directions; 8 x 400 Gb/s InfiniBand for 8 GPUs.
MACHINES = (
    Machine("256 x TPU v5e", "TPU v5 lite", 16e9, 200e9, 200e9, CHIPS),
    Machine("256 x TPU v5p", "TPU v5p", 95e9, 600e9, 600e9, CHIPS),
    Machine("32 x 8 H100", "NVIDIA H100 80GB HBM3", 80e9, 450e9, 50e9, 8),
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A step of a model on a machine, per chip."""

    examples: float
    state: float  # bytes: parameters, two moments
    temp: float  # bytes: gradients and what the backward pass keeps
    compute: float  # seconds
    exchange: float  # seconds
    break_even: float  # examples for which the exchange takes as long as the computation

    @property
    def step(self) -> float:
        """Seconds."""
        return self.compute + self.exchange

    @property
    def mfu(self) -> float:
        """What is left of `MFU`."""
        return MFU * self.compute / self.step


def estimate(name: str, machine: Machine, label: str) -> Estimate:
    """Returns the estimate of a model of `BATCHES` in a placement of `PLACEMENTS`."""
    spec, rows = specs.parse(released.MODELS[name]), _parameters(name, label)
    size = sum(row.bytes_total for row in rows)
    held = sum(row.bytes_per_device for row in rows)
    examples = BATCHES[name] / CHIPS
    one = _flops(name) / (MFU * machine.peak)
    exchange = sum(_seconds(row, spec, machine, PLACEMENTS[label]) for row in rows)
    return Estimate(
        examples=examples,
        state=3 * held,
        temp=TEMP_GIB[name] * GIB - (size - held),  # gradients are held in parts as well
        compute=examples * one,
        exchange=exchange,
        break_even=exchange / one,
    )


@functools.cache
def _flops(name: str) -> float:
    return flops_per_example(perceiver.build(released.MODELS[name]))


@functools.cache
def _shapes(name: str):
    return jax.eval_shape(perceiver.build(released.MODELS[name]).init, jax.random.key(0))[0]


@functools.cache
def _parameters(name: str, label: str) -> list[sharding.ShardingRow]:
    """Returns how each parameter lies on `CHIPS` devices that need not exist."""
    sizes = PLACEMENTS[label] or {"data": CHIPS, "fsdp": 1, "sequence": 1}
    devices = AbstractMesh(tuple(sizes.values()), tuple(sizes))

    def lay(keys, x):
        cut = sharding.split(sharding.path_of(keys), x.shape, sizes["fsdp"], "fsdp")
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(devices, cut))

    return sharding.sharding_table(jax.tree_util.tree_map_with_path(lay, _shapes(name)))


def _seconds(row, spec: specs.Backbone, machine: Machine, mesh: dict[str, int] | None) -> float:
    """Seconds that the exchange of one parameter and its gradient takes."""
    size, parts = row.bytes_total, row.bytes_total // row.bytes_per_device
    if mesh is None:
        return 2 * machine.gather(size, CHIPS)
    reads, uses = collectives.exchanges(row.path, spec)
    if parts == 1:
        return uses * 2 * machine.gather(size, CHIPS)
    within = (reads + uses) * machine.gather(size, parts)
    copies = CHIPS // parts
    between = 2 * machine.gather(size / parts, copies, across=parts >= machine.node)
    return within + (uses * between if copies > 1 else 0.0)


def tables() -> Iterator[str]:
    """Yields the tables of docs/scaling.md, as Markdown."""
    heads = ["model", "machine", "examples a chip", "compute ms", "exchange ms", "step ms"]
    body = []
    for name, batch in BATCHES.items():
        for machine in MACHINES:
            x = estimate(name, machine, "pmap")
            body.append(
                [
                    f"{name}, batch {batch:,}",
                    machine.name,
                    f"{x.examples:g}",
                    *(f"{1e3 * t:.1f}" for t in (x.compute, x.exchange, x.step)),
                    f"{100 * x.mfu:.0f} %",
                    f"{x.break_even:.1f}",
                ]
            )
    yield _markdown([*heads, "MFU", "break-even"], body)
    heads = ["model", "placement", "state GiB", "temp GiB"]
    body = []
    for name in BATCHES:
        for label in PLACEMENTS:
            found = [estimate(name, machine, label) for machine in MACHINES]
            memory = [f"{x / GIB:.2f}" for x in (found[0].state, found[0].temp)]
            body.append([name, label, *memory, *(f"{1e3 * x.exchange:.1f}" for x in found)])
    yield _markdown([*heads, *(f"exchange ms, {m.name}" for m in MACHINES)], body)


def _markdown(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def temp_gib(name: str) -> float:
    """Compiles a step of batch / CHIPS examples for one device, traced as for an accelerator."""
    step = steps.make(released.MODELS[name], BATCHES[name] // CHIPS)
    with mock.patch.object(jax, "default_backend", return_value="tpu"):
        program = measure.compile_program(step.run, step.state, step.batch, donate=(0,))
    return program.temp_mib / 1024


def main() -> None:
    """Prints the tables, or one model's temporary memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--compile", choices=BATCHES, metavar="NAME")
    options = parser.parse_args()
    if options.compile:
        print(f"{options.compile}: {temp_gib(options.compile):.2f} GiB")
        return
    print("\n".join(tables()))


if __name__ == "__main__":
    main()

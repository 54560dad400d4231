"""A whole training step beside Hugging Face's PyTorch: forward, backward and AdamW.

    python -m benchmarks.training_step [NAME ...] [--rounds 5] [--batch 1] [--remat dots]
        [--operands float32] [--peer-python PYTHON] [--json FILE] [--smoke]

NAME: imagenet-fourier, masked-lm-bytes (default: both), at full size. Same model, same
hyper-parameters, random weights, no dropout, float32. Each side has a process of its own; they take
steps in turn, the first of which (it compiles) does not count. Needs the extra `parity`, or
`--peer-python`, a Python of another environment that has `torch` and `transformers`.

Peak memory is that of each process, start-up and compilation included. On a machine that does other
work too, set OMP_WAIT_POLICY=PASSIVE: PyTorch's threads otherwise spin while they wait for each
other, which counts as CPU time.
"""

import argparse
import json
import math
import statistics
import sys
from typing import Any

import jax
from perceiver.compute import OPERANDS
from perceiver.processor import REMAT

from benchmarks import draw, steps, table, turns
from perceiver import released, specs

NAMES = ("imagenet-fourier", "masked-lm-bytes")
OPTIM = {
    "name": "adamw",
    "lr": 1e-3,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-6,
    "weight_decay": 0.01,
    "clip_norm": 0.0,
}
_IDS = 256  # token ids and labels are drawn below this
_TINY = {"latents": 16, "latent_channels": 64, "layers": 2, "blocks": 1}
# What Hugging Face's models fix (64 bands, 8 heads of 32 in the text decoder) stays.
_TINY_KIND = {
    "imagenet-fourier": {"image_shape": (8, 8, 3), "query_channels": 64},
    "masked-lm-bytes": {"max_length": 32, "embedding_channels": 64, "cross_v_channels": 64},
}


def measure(name: str, options: argparse.Namespace) -> list[table.Row]:
    """Returns a row for each side."""
    task = json.dumps(
        {"name": name, "spec": _spec(name, options), "optim": OPTIM, "batch": options.batch}
    )
    with (
        turns.Worker(sys.executable, "benchmarks.training_step", ["--serve", task]) as ours,
        turns.Worker(options.peer_python, "benchmarks.huggingface", [task]) as peer,
    ):
        if ours.facts["parameters"] != peer.facts["parameters"]:
            raise RuntimeError(f"{name}: not the same model: {ours.facts}, {peer.facts}")
        taken = [(ours.step(), peer.step()) for _ in range(1 + options.rounds)][1:]
    mine, theirs = (_summary(rounds) for rounds in zip(*taken, strict=True))
    labels = {"case": f"{name}, batch {options.batch}", "work": "training step"}
    versions = peer.facts["versions"]
    return [
        table.Row(**labels, form="Hugging Face", note=versions, **theirs),
        table.Row(
            **labels,
            form=f"ours, remat {options.remat}",
            dtype=options.operands,
            wall_ratio=statistics.median(b["wall_s"] / a["wall_s"] for a, b in taken),
            cpu_ratio=statistics.median(b["cpu_s"] / a["cpu_s"] for a, b in taken),
            resident_ratio=theirs["resident_mib"] / mine["resident_mib"],
            note="ratios: Hugging Face / ours",
            **mine,
        ),
    ]


def serve(task: dict[str, Any]) -> None:
    """Takes our steps, in turn with the other process."""
    step = steps.make(task["spec"], task["batch"], optim=task["optim"])
    state = jax.block_until_ready(jax.jit(step.init)())
    batch = draw.batch(step.batch, highest=_IDS)
    run = jax.jit(step.run, donate_argnums=0)
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))

    def take() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(run(state, batch))

    turns.serve(take, parameters=count)


def _spec(name: str, options: argparse.Namespace) -> dict[str, Any]:
    tiny = _TINY | _TINY_KIND[name] if options.smoke else {}
    how = {"remat": options.remat, "operands": options.operands}
    return specs.parse(released.MODELS[name] | tiny | how).to_dict()


def _summary(rounds: tuple[dict[str, float], ...]) -> dict[str, float]:
    return {
        "wall_s": statistics.median(x["wall_s"] for x in rounds),
        "cpu_s": statistics.median(x["cpu_s"] for x in rounds),
        "resident_mib": rounds[-1]["resident_mib"],
    }


def main() -> None:
    """Prints two rows per model."""
    parser = table.parser(__doc__, rounds=5)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--remat", choices=REMAT, default=REMAT[0], help="of our processor")
    parser.add_argument("--operands", choices=OPERANDS, default="float32", help="of our products")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--serve", type=json.loads, metavar="JSON", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    report = table.Report(options)
    for name in table.chosen(NAMES, options.names):
        report.add(*measure(name, options))
    report.write("training_step")


if __name__ == "__main__":
    main()

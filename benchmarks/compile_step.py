"""Compile time and memory of full-size training steps, by XLA's own account.

    python -m benchmarks.compile_step [--batch 2] [--remat none] [NAME ...]

NAME is a key of `perceiver.released.MODELS` (default: imagenet-fourier). The step is the real one:
forward, backward and LAMB in the papers' order on one device. Every array is abstract, so that
nothing is computed.
"""

import argparse
import time

import jax

from benchmarks import steps
from benchmarks.measure import MIB
from perceiver import released


def main() -> None:
    """Prints one row per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", default=["imagenet-fourier"], metavar="NAME")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--remat", default="none")
    options = parser.parse_args()
    print(
        f"{'model':<28}{'batch':>6}{'trace s':>9}{'compile s':>11}{'state MiB':>11}{'temp MiB':>10}"
    )
    for name in options.names:
        step = steps.make(released.MODELS[name] | {"remat": options.remat}, options.batch)
        state = step.state
        began = time.perf_counter()
        lowered = jax.jit(step.run, donate_argnums=0).lower(state, step.batch)
        traced = time.perf_counter()
        memory = lowered.compile().memory_analysis()
        compiled = time.perf_counter()
        held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / MIB
        print(
            f"{name:<28}{options.batch:>6}{traced - began:>9.1f}{compiled - traced:>11.1f}"
            f"{held:>11.0f}{memory.temp_size_in_bytes / MIB:>10.0f}"
        )


if __name__ == "__main__":
    main()

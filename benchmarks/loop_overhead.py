"""What the training loop costs beside the device's own work, as a ratio within one run.

    python -m benchmarks.loop_overhead [--steps 100] [--rounds 5]

The quickstart's training step is timed twice, in turn: bare (the same batch, already on the
device, again and again) and in the loop (batches drawn, augmented and transferred, metrics kept,
fetched and written at the config's `log_every`). Printed is the median of the ratios. On a CPU
the data pipeline and the step share the cores; on an accelerator they do not.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time

import jax
from train.speed import Watch
from train.window import Window

from configs import digits
from train import experiment
from train.report import Report


def main() -> None:
    """Prints the seconds of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--steps", type=int, default=100, help="of each timing")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    config = digits.get_config()
    run = experiment.make(config)
    state = run.placement.init(run.init_state)
    train_step, batches = run.train_step(), run.batches("train", train=True)
    fixed = run.placement.put(next(batches))
    state, _ = jax.block_until_ready(train_step(state, fixed))

    def bare(state):
        for _ in range(options.steps):
            state, _ = train_step(state, fixed)
        return jax.block_until_ready(state)

    def in_loop(state, report, watch):
        window = Window(run.placement)
        for step in range(1, options.steps + 1):
            with report.waiting(watch.idle_since):
                batch = next(batches)
            state, sums = train_step(state, run.placement.put(batch))
            watch.follow(sums)
            window.add(step, sums)
            if step % config.train.log_every == 0:
                report.write(step, window.take() | {"lr": float(run.schedule(step))})
        return jax.block_until_ready(state)

    ratios = []
    with contextlib.closing(batches), tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            silent = Report(folder, options.steps, batch_size=1, stream=io.StringIO())
            with silent as report, Watch() as watch:
                began = time.perf_counter()
                state = bare(state)
                middle = time.perf_counter()
                state = in_loop(state, report, watch)
                ended = time.perf_counter()
            ratios.append((ended - middle) / (middle - began))
            print(
                f"bare {1e3 * (middle - began) / options.steps:.2f} ms, "
                f"in the loop {1e3 * (ended - middle) / options.steps:.2f} ms, "
                f"ratio {ratios[-1]:.3f}"
            )
    print(f"median ratio {statistics.median(ratios):.3f} over {options.rounds} rounds")


if __name__ == "__main__":
    main()

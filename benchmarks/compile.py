"""Start-up and overhead: compiling a training step, the first answer of a model, the training loop.

    python -m benchmarks.compile [--parts PART ...] [--rounds 5] [--smoke]

PART:
  step          the full-size training step of Perceiver IO on ImageNet (batch 2, LAMB) under each
                remat policy: tracing, compiling, and its memory by the compiler's account, beside
                the dense form's loss and gradient alone, which is extrapolated from 1 and 2 of its
                8 blocks. Nothing is run
  first-answer  a masked language model of the released size (untrained) is saved and loaded in
                processes of their own: one that is not counted, so that the file is in the system's
                cache; one that compiles and fills a compile cache; one that finds it. Seconds from
                the start of the process, imports included, to the first filled-in text; of the
                first call alone; and the most memory over the weights'
  loop          the quickstart's training step inside the training loop (batches drawn, augmented
                and transferred, metrics kept and written) beside the bare step on one batch. On a
                CPU the data pipeline and the step share the cores; on an accelerator they do not
"""

import time

started = time.perf_counter()  # before the imports, which count

import argparse  # noqa: E402
import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import io  # noqa: E402
import itertools  # noqa: E402
import pathlib  # noqa: E402
import tempfile  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402

import perceiver  # noqa: E402
from benchmarks import measure  # noqa: E402
from perceiver import compile_cache  # noqa: E402
from perceiver.kinds import released  # noqa: E402
from perceiver.model.processor import REMAT  # noqa: E402

FORMATS = ("native", "huggingface")
_TEXT = "This is an incomplete sentence where some words are[MASK:9]"
_TINY = {"layers": 2, "latents": 16, "latent_channels": 64, "cross_v_channels": 64}


def step(options: argparse.Namespace) -> list[measure.Row]:
    """Returns a row for the dense form and for each remat policy."""
    from benchmarks import models

    spec, batch = models.get_spec(models.IMAGENET, smoke=options.smoke), 2
    one, two = (
        models.dense_gradient_mib(dataclasses.replace(spec, blocks=n), batch) for n in (1, 2)
    )
    baseline = one + (spec.blocks - 1) * (two - one)
    rows = [{"program": "gradient, dense, extrapolated", "temp MiB": baseline}]
    for remat in REMAT[: 1 if options.smoke else None]:
        made = models.make_step(dataclasses.replace(spec, remat=remat), batch)
        state = made.state
        began = time.perf_counter()
        lowered = jax.jit(made.run, donate_argnums=0).lower(state, made.batch)
        traced = time.perf_counter()
        temp = lowered.compile().memory_analysis().temp_size_in_bytes / measure.MIB
        seconds = {"trace s": traced - began, "compile s": time.perf_counter() - traced}
        row = {"program": f"training step, remat {remat}", "temp MiB": temp}
        rows.append(row | {"temp x": baseline / temp} | seconds)
    return rows


def first_answer(options: argparse.Namespace) -> list[measure.Row]:
    """Returns a row for each format."""
    spec, rows = released.MODELS["masked-lm-bytes"] | (_TINY if options.smoke else {}), []
    with tempfile.TemporaryDirectory() as name:
        folder, model = pathlib.Path(name), perceiver.fresh(spec)
        weights = sum(x.nbytes for x in jax.tree.leaves(model.params)) / measure.MIB
        for form in FORMATS:
            model.save(folder / form, to=form)
            runs = []
            for cache in ("uncounted", "cache", "cache"):
                words = ["--serve", str(folder / form), str(folder / f"{cache}-{form}")]
                with measure.Worker("benchmarks.compile", words) as worker:
                    runs.append(worker.facts)
            _, cold, warm = runs
            row = {"format": form, "weights MiB": weights, "compiling s": cold["answer"]}
            row |= {"cached s": warm["answer"], "first call, compiling s": cold["call"]}
            row |= {"first call, cached s": warm["call"], "loading s": warm["load"]}
            rows.append(row | {"peak / weights": warm["peak_mib"] / weights})
    return rows


def answer(source: str, cache: str) -> dict[str, float]:
    """Loads a model, fills in one text, and returns what that took since the process started."""
    compile_cache.enable(cache)
    began = time.perf_counter()
    model = perceiver.load(source)
    loaded = time.perf_counter()
    filled = model.fill_mask(_TEXT)
    done = time.perf_counter()
    if not np.isfinite(filled.spans[0].probability):
        raise ValueError("the answer is not finite")
    found = {"load": loaded - began, "call": done - loaded, "answer": done - started}
    return found | {"peak_mib": measure.peak_resident_mib()}


def loop(options: argparse.Namespace) -> list[measure.Row]:
    """Returns a row for each of both."""
    from configs import digits
    from train import experiment
    from train.report.report import RunReport
    from train.report.speed import DeviceWatch
    from train.run.window import MetricWindow

    config = digits.get_config("fourier,smoke" if options.smoke else "")
    steps = 2 if options.smoke else 100
    run = experiment.make(config)
    train_step, batches = run.train_step(), run.batches("train", train=True)
    fixed, state = run.placement.put(next(batches)), run.placement.init(run.init_state)

    def bare():
        nonlocal state
        for _ in range(steps):
            state, _ = train_step(state, fixed)
        jax.block_until_ready(state)

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(batches))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        silent = RunReport(folder, steps, batch_size=1, stream=io.StringIO())
        report, watch = stack.enter_context(silent), stack.enter_context(DeviceWatch())
        numbers = itertools.count(1)

        def in_loop():
            nonlocal state
            window = MetricWindow(run.placement)
            for number in itertools.islice(numbers, steps):
                with report.waiting(watch.idle_since):
                    batch = next(batches)
                state, sums = train_step(state, run.placement.put(batch))
                watch.track(sums)
                window.add(number, sums)
                if number % config.train.log_every == 0:
                    report.write(number, window.flush() | {"lr": float(run.schedule(number))})
            jax.block_until_ready(state)

        timings = measure.race({"bare": bare, "in the loop": in_loop}, options.rounds)
    ratio = measure.median_ratio(timings["in the loop"].walls, timings["bare"].walls)
    rows = [{"step": name, "ms": 1e3 * x.wall / steps} for name, x in timings.items()]
    return [rows[0], rows[1] | {"ratio": ratio}]


PARTS = {"step": step, "first-answer": first_answer, "loop": loop}


def main() -> None:
    """Prints a table for each part."""
    parser = measure.parser(__doc__, rounds=5, parts=PARTS)
    parser.add_argument("--serve", nargs=2, help="used by the processes it starts")
    options = parser.parse_args()
    if options.serve:
        measure.serve(**answer(*options.serve))
        return
    measure.start(options)
    for part in options.parts:
        measure.show(PARTS[part](options))


if __name__ == "__main__":
    main()

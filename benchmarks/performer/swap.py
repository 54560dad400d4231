"""A trained Transformer with random features in the place of its softmax, before and after tuning.

The model is that of `configs/masked_lm.py:performer`, smaller, on the embedded text. It learns with
the exact kernel; then its weights are evaluated with another one, as they are, and after a third as
many steps again. The same steps with the exact kernel tell what these alone are worth.
"""

import pathlib

from train.broken import BrokenExamples

from configs import masked_lm
from train import evaluate, loop, trained

EXACT = ("exact", "auto", False)
SWAPS = (  # name, kernel, whether features are redrawn in each step
    EXACT,
    ("positive, redrawn", "favor_positive", True),
    ("positive, fixed", "favor_positive", False),
    ("ReLU, fixed", "favor_relu", False),
)
STEPS, TUNING_STEPS = 3000, 1000


def config(kernel: str, redraw: bool, steps: int, smoke: bool):
    """Returns the config of a run with a kernel, of so many steps."""
    c = masked_lm.get_config("performer,smoke" if smoke else "performer")
    c.model.update(kernel=kernel, kernel_redraw=redraw)
    if smoke:
        c.data.eval_examples = 64
    else:
        c.model.update(channels=64, layers=2, heads=4, kernel_features=128)
        c.optim.update(lr=2e-3, warmup_steps=steps // 30)
        c.train.update(steps=steps, eval_every=steps, save_every=steps)
    return c


def measure(folder: pathlib.Path, smoke: bool = False) -> list[dict]:
    """Trains, swaps and tunes, each in a folder of its own; returns held-out bits per byte."""
    first = folder / "exact"
    loop.run(config(*EXACT[1:], STEPS, smoke), first)
    rows = []
    for name, kernel, redraw in SWAPS:
        tuning = config(kernel, redraw, TUNING_STEPS, smoke)
        swapped = trained.from_weights(tuning, str(first))
        before, _ = evaluate.predict(swapped.experiment, swapped.state, BrokenExamples(print))
        tuning.init_from.source = str(first)
        after = loop.run(tuning, folder / f"tuned, {name}")
        rows.append({"kernel": name, "swapped": before["bits"], "tuned": after["bits"]})
    return rows


def table(rows: list[dict]) -> str:
    """Returns a Markdown table of bits per masked byte."""
    lines = ["| kernel | as it is | tuned |", "|---|---|---|"]
    lines += [f"| {row['kernel']} | {row['swapped']:.2f} | {row['tuned']:.2f} |" for row in rows]
    return "\n".join(lines)

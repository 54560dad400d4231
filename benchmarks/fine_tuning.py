"""What pre-training is worth: the parts of Python sources told apart, from it and afresh.

    python -m benchmarks.fine_tuning --pretrained runs/bytes [--seeds 0 1 2]
        [--folder runs/fine_tuning] [--steps 400] [--smoke]

`runs/bytes` is a run of `configs/masked_lm.py:embedded`. The same model, data, optimiser and steps
(`configs/text_classification.py:embedded`) with the encoder and the decoder's weights of that run,
and without; validation files were seen by neither. What is interrupted goes on where it stopped.
"""

import argparse
import pathlib
import statistics

from configs import text_classification
from train import loop

STARTS = ("pre-trained", "afresh")

Results = dict[str, list[float]]  # start -> accuracy of each seed, in percent


def measure(
    pretrained: str, folder: pathlib.Path, seeds: list[int], steps: int, smoke: bool = False
) -> Results:
    """Trains from both starts with all seeds, each in its own folder."""
    results: Results = {start: [] for start in STARTS}
    for seed in seeds:
        for start in STARTS:
            config = text_classification.get_config("embedded,smoke" if smoke else "embedded")
            config.seed = seed
            config.init_from.source = pretrained if start == "pre-trained" else ""
            if not smoke:
                config.train.steps = steps
            final = loop.run(config, folder / f"{start}-{seed}")
            results[start].append(100 * final["accuracy"])
    return results


def table(results: Results) -> str:
    """Returns a Markdown table: means, and every seed's own number."""
    lines = ["| start | held-out accuracy |", "|---|---|"]
    for start, values in results.items():
        each = ", ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {start} | {statistics.mean(values):.1f} % ({each}) |")
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained", required=True, help="what config.init_from.source takes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/fine_tuning"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--smoke", action="store_true", help="two steps of tiny models")
    options = parser.parse_args()
    results = measure(
        options.pretrained, options.folder, options.seeds, options.steps, options.smoke
    )
    print(table(results))


if __name__ == "__main__":
    main()

"""What pre-training is worth: parts of Python sources classified, from it and afresh.

    python -m train --config=configs/masked_lm.py:embedded --workdir=runs/bytes
    python -m experiments.fine_tuning --pretrained runs/bytes [--seeds 0 1 2] [--smoke]

The same model, data, optimiser and steps (`configs/text_classification.py:embedded`) with the
encoder and the decoder's weights of that run, and without; validation files were seen by neither.
"""

from benchmarks import measure
from configs import masked_lm, text_classification
from experiments import common
from train import loop


def main() -> None:
    """Trains, and prints the table."""
    parser = common.parser(__doc__, "fine_tuning", seeds=True)
    parser.add_argument("--pretrained", default="runs/bytes", help="what init_from.source takes")
    options = parser.parse_args()
    common.start(options)
    variant = "embedded,smoke" if options.smoke else "embedded"
    source = options.pretrained
    if options.smoke:
        source = str(options.folder / "pretrained")
        loop.run(masked_lm.get_config(variant), options.folder / "pretrained")
    rows = []
    for start, weights in (("pre-trained", source), ("afresh", "")):
        accuracies = []
        for seed in options.seeds:
            config = text_classification.get_config(variant)
            config.seed, config.init_from.source = seed, weights
            final = loop.run(config, options.folder / f"{start}-{seed}")
            accuracies.append(100 * final["accuracy"])
        rows.append({"start": start, "held-out accuracy, %": common.each(accuracies)})
    measure.show(rows)


if __name__ == "__main__":
    main()

"""Draws images of what a run's model does.

python -m train.pictures WORKDIR     of the last checkpoint, into WORKDIR
"""

import pathlib
import sys

from train.evaluate import draw
from train.run import trained_model


def main(arguments: list[str]) -> None:
    """Draws what the task of a run has to show, such as what the latents attend to."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise SystemExit("usage: python -m train.pictures WORKDIR")
    folder = pathlib.Path(arguments[0])
    try:
        files = draw(trained_model.from_run(folder), folder)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    for what, path in files.items():
        print(f"{what}: {path}")
    if not files:
        print("the task of this run has no images to draw")


if __name__ == "__main__":
    main(sys.argv[1:])

"""`python -m train --config=configs/digits.py[:VARIANT] --workdir=DIR [--config.FIELD=VALUE ...]`.

`--workdir` is the folder of the run; a run that was interrupted goes on from where it stopped.
`configs/common.py` lists all fields.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from train import command

_CONFIG = config_flags.DEFINE_config_file("config", None, "config file:variant", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")


def main(arguments: list[str]) -> None:
    """Trains."""
    if len(arguments) > 1:
        raise app.UsageError(f"unexpected words on the command line: {' '.join(arguments[1:])}")
    logging.set_verbosity(logging.WARNING)  # JAX tells which backends it did not find, at INFO
    from train import loop  # after the flags are known to be good: JAX takes seconds to import

    try:
        loop.run(_CONFIG.value, _WORKDIR.value)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"\n{type(error).__name__}: {error}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    try:
        command.check(sys.argv[1:])
    except ValueError as problem:
        sys.exit(str(problem))
    app.run(main)

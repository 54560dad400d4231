"""`python -m train --config=configs/FILE.py[:VARIANT] --workdir=DIR [--config.FIELD=VALUE ...]`"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "config file, optionally with ':variant'; see configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run; an interrupted run goes on from where it stopped"
)


def main(arguments: list[str]) -> None:
    """Trains."""
    if len(arguments) > 1:
        raise app.UsageError(f"unexpected words on the command line: {' '.join(arguments[1:])}")
    logging.set_verbosity(logging.WARNING)  # JAX tells which backends it did not find, at INFO
    from train import loop  # after the flags are known to be good: JAX takes seconds to import

    try:
        loop.run(_CONFIG.value, _WORKDIR.value)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)

"""`python -m train --config=configs/digits.py[:VARIANT] --workdir=DIR [--config.FIELD=VALUE ...]`.

`--workdir` is the folder of the run; an interrupted run resumes from its last checkpoint.
`configs/common.py` lists all fields. On several hosts, run the same command on each. Under SLURM,
Open MPI and on TPU slices they find each other; elsewhere add --coordinator=HOST:PORT (of process
0), --processes=N and --process=I.

Exit codes: 0 the run is complete, 75 preempted after saving, 76 a host hung, 130 stopped by Ctrl-C
after saving (for these: run the same command again), anything else an error whose message says what
to change.
"""

import os
import re
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from train import command
from train.guard import exit_codes

_CONFIG = config_flags.DEFINE_config_file("config", None, "config file:variant", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT where process 0 listens")
_PROCESSES = flags.DEFINE_integer(
    "processes", None, "number of processes; 1: run alone under any scheduler"
)
_PROCESS = flags.DEFINE_integer("process", None, "index of this process, from 0")
_PROFILE = flags.DEFINE_string("profile", "", "START:STOP: trace these steps into WORKDIR/profile")
_HOST_TIMEOUT = flags.DEFINE_integer(
    "host_timeout", 100, "seconds of silence after which a host counts as dead"
)

# Of what JAX's runtime raises on several hosts, that which no lost host explains.
_OURS = "RESOURCE_EXHAUSTED|INVALID_ARGUMENT|UNIMPLEMENTED|OUT_OF_RANGE|NOT_FOUND"
_EXPECTED = (ValueError, OSError, FloatingPointError)


def main(arguments: list[str]) -> None:
    """Trains."""
    if len(arguments) > 1:
        raise app.UsageError(f"unexpected arguments on the command line: {' '.join(arguments[1:])}")
    logging.set_verbosity(logging.WARNING)  # JAX tells which backends it did not find, at INFO
    # After the flags are known to be good: JAX takes seconds to import.
    import jax

    from perceiver import compile_cache
    from train import loop
    from train.checkpoint.checkpoint import SaveError
    from train.devices import cluster, determinism
    from train.guard.preemption import Preempted

    try:
        determinism.apply(_CONFIG.value)
        compile_cache.enable_if_possible()
        cluster.join(
            _COORDINATOR.value,
            _PROCESSES.value,
            _PROCESS.value,
            host_timeout=_HOST_TIMEOUT.value,
        )
        loop.run(_CONFIG.value, _WORKDIR.value, profile=_PROFILE.value)
    except Preempted as told:
        _end(told, exit_codes.STOPPED if told.by_hand else exit_codes.PREEMPTED)
    except (*_EXPECTED, SaveError) as error:
        _end(f"{type(error).__name__}: {error}", 1)
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        is_ours = not isinstance(error, jax.errors.JaxRuntimeError) or re.match(_OURS, str(error))
        _end(
            "this host failed" if is_ours else "lost another host",
            1 if is_ours else exit_codes.HUNG,
        )


def _end(message: object, code: int) -> None:
    import jax

    print(f"\n{message}", file=sys.stderr, flush=True)
    if jax.distributed.is_initialized() and code != exit_codes.PREEMPTED:
        # Python's own exit would wait for the other hosts, which may be waiting for this one.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    try:
        command.check(sys.argv[1:])
    except ValueError as problem:
        sys.exit(str(problem))
    app.run(main)

"""The processes of a run (one a host, or one a GPU) find each other before any device is used.

The engine is JAX's own distributed runtime. Under SLURM, Open MPI and on TPU slices it knows where
everyone is; elsewhere the command line says it, the same on all hosts but for `--process`.
"""

import os
import socket
from collections.abc import Mapping

import jax

# What each scheduler sets for a process of a job with several, and how it says how many.
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_OPEN_MPI = ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE")


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    host_timeout: int = 100,
    start_timeout: int = 300,
) -> str | None:
    """Joins the other processes of this run; must come before anything touches a device.

    Args:
      coordinator: "HOST:PORT" of process 0, which listens there; None: ask the scheduler.
      processes: how many there are; 1: this one alone, whatever the scheduler says.
      process: which one this is, from 0.
      host_timeout: seconds after which a silent process counts as dead, and ends all others.
      start_timeout: seconds to wait for all processes at the start.

    Returns:
      By what the others were found: "addresses", "slurm", "ompi", "tpu"; None: this process is
      alone.

    Raises:
      ValueError: only some of the three are given, or they cannot be.
      ConnectionError: the others were not there in time.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    if processes == 1 and coordinator is None and process in (None, 0):
        return None
    if any(value is not None for value in given.values()):
        _check(given)
        method, words = "addresses", (coordinator, processes, process)
    else:
        method, words = detect(os.environ), ()
        if method is None:
            return None
    if "cpu" in (jax.config.jax_platforms or "cpu"):  # CPUs talk by Gloo; others need nothing
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            *words,
            cluster_detection_method="deactivate" if words else method,
            initialization_timeout=start_timeout,
            heartbeat_timeout_seconds=host_timeout,
        )
    except RuntimeError as error:
        me = f"process {process}" if words else "this process"
        raise ConnectionError(
            f"{me} on {socket.gethostname()} could not connect to the others"
            f"{f' at {coordinator}' if words else ''} within {start_timeout} s: start the same "
            "command on all hosts, and make sure that they reach that port. The runtime reports: "
            f"{str(error).splitlines()[0][:300]}"
        ) from error
    return method


def detect(environment: Mapping[str, str]) -> str | None:
    """Returns which scheduler started this process as one of several, as JAX calls it, or None.

    A TPU virtual machine always counts: how many hosts its slice has only its metadata tell.
    """
    if all(name in environment for name in _SLURM) and int(environment["SLURM_NTASKS"]) > 1:
        return "slurm"
    if all(name in environment for name in _OPEN_MPI):
        return "ompi" if int(environment["OMPI_COMM_WORLD_SIZE"]) > 1 else None
    # JAX sets these on import: the first where it finds TPU chips, the second where it does not.
    found_tpu = "TPU_ML_PLATFORM" in environment and "TPU_SKIP_MDS_QUERY" not in environment
    return "tpu" if found_tpu and "cpu" not in environment.get("JAX_PLATFORMS", "") else None


def _check(given: Mapping[str, str | int | None]) -> None:
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} missing: to set up the processes of a run manually, give "
            "--coordinator=HOST:PORT, --processes=N and --process=I, or none of the three"
        )
    host, _, port = str(given["--coordinator"]).rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(
            f"--coordinator={given['--coordinator']} is not HOST:PORT, such as 10.0.0.1:8476"
        )
    if not 0 <= given["--process"] < given["--processes"]:
        raise ValueError(
            f"--process={given['--process']} must lie in 0..{given['--processes'] - 1}: there are "
            f"--processes={given['--processes']}"
        )

"""`config.deterministic`: the same numbers from the same run, bit for bit, on GPUs too.

Everything random is drawn from the seed and the step, and a resumed run goes through the same
numbers on every platform, as far as the compiled programs themselves repeat:

  CPU, TPU   they do, always; the setting changes nothing.
  GPU        atomic additions (scatters, some convolutions) sum in whatever order threads finish,
             and the kernels chosen by timing may differ from one start to the next. XLA's flag
             forbids the first and settles the second; it costs speed, and a program that has no
             deterministic form fails to compile with an error that names the operation.

What it cannot do: another number of devices, another placement or other versions sum in another
order. Such runs agree up to rounding, not bit for bit.
"""

import os
from typing import Any

import jax

FLAG = "--xla_gpu_deterministic_ops"
_OFF = ("false", "0", "f", "no")
# JAX does not tell whether its devices are up, but refuses to change this once they are.
_GUARDED = "jax_cpu_get_global_topology_timeout_minutes"


def apply(config: Any) -> bool:
    """Sets what has to be set before JAX touches a device; returns whether anything was asked for.

    Safe to call twice. Child processes inherit the setting.

    Raises:
      ValueError: XLA_FLAGS forbids what `config.deterministic` asks for.
      RuntimeError: too late: XLA has read its flags.
    """
    if not config.deterministic:
        return False
    words = os.environ.get("XLA_FLAGS", "").split()
    given = [word for word in words if word.partition("=")[0] == FLAG]
    if given and given[-1].partition("=")[2].lower() in _OFF:
        raise ValueError(
            f"config.deterministic=True, but the environment's XLA_FLAGS has {given[-1]}; "
            "remove one of the two"
        )
    if given:
        return True
    _refuse_if_late()
    os.environ["XLA_FLAGS"] = " ".join([*words, f"{FLAG}=true"])
    return True


def _refuse_if_late() -> None:
    minutes = getattr(jax.config, _GUARDED)
    try:
        jax.config.update(_GUARDED, minutes + 1)
        jax.config.update(_GUARDED, minutes)
    except RuntimeError as error:
        raise RuntimeError(
            "config.deterministic=True comes too late: JAX reads XLA_FLAGS before it initialises "
            f"its devices, which it has done; start the process with XLA_FLAGS={FLAG}=true"
        ) from error

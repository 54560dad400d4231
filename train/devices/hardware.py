"""What the devices could do, and the most memory that was held: for the report of a run.

A peak is what the maker publishes for one JAX device, dense (no sparsity). It depends on what XLA
makes of a product at JAX's default precision: operands of bfloat16 run as such; those of float32
run as TensorFloat-32 on NVIDIA's GPUs since Ampere, in float32 on those before, and as bfloat16 on
TPUs. With `jax_default_matmul_precision` set higher, the true peak is lower than told here.
"""

import pathlib
import re
import resource
import sys
from typing import Any, NamedTuple

import jax

_GIB = 2**30


class _Peak(NamedTuple):
    """FLOP/s of one JAX device, by the operands of the model's products."""

    kind: str  # a regular expression for the start of `device.device_kind`; the first match counts
    bfloat16: float
    float32: float


# TPUs: the "system architecture" pages of Google's Cloud TPU documentation, per chip. A chip of v2,
# v3 and 7x is two JAX devices, one for each core.
# GPUs: NVIDIA's and AMD's data sheets; where they give the sparse figure, half of it.
_PEAKS = (
    _Peak("TPU v2", 23e12, 23e12),  # 46 a chip
    _Peak("TPU v3", 61.5e12, 61.5e12),  # 123 a chip
    _Peak("TPU v4$", 275e12, 275e12),
    _Peak("TPU v5 ?(lite|e)", 197e12, 197e12),
    _Peak("TPU v5p?$", 459e12, 459e12),
    _Peak("TPU v6 ?(lite|e)", 918e12, 918e12),
    _Peak("TPU7x", 1153.5e12, 1153.5e12),  # Ironwood: 2,307 a chip
    # Blackwell: DGX B200 and GB200 NVL72 data sheets, 36 and 360 PFLOP/s (sparse, 8 and 72 GPUs).
    _Peak("NVIDIA GB200", 2500e12, 1250e12),
    _Peak("NVIDIA B200", 2250e12, 1125e12),
    # Hopper: H100 and H200 data sheets. The NVL cards are slower than the SXM modules.
    _Peak("NVIDIA H(100|200) NVL", 835.5e12, 417.5e12),
    _Peak("NVIDIA H100 PCIe", 756e12, 378e12),
    _Peak(r"NVIDIA (GH200|H100|H200)\b", 989.4e12, 494.7e12),
    _Peak("NVIDIA H800 PCIe", 756e12, 378e12),
    _Peak("NVIDIA H800", 989.4e12, 494.7e12),
    _Peak("NVIDIA H20$", 148e12, 74e12),
    # Ampere and Ada: data sheets of the A100, A800, A30, A10, L4, L40S.
    _Peak(r"NVIDIA (A100|A800)\b", 312e12, 156e12),
    _Peak("NVIDIA A30", 165e12, 82e12),
    _Peak("NVIDIA A10$", 125e12, 62.5e12),
    _Peak("NVIDIA L4$", 121e12, 60e12),
    _Peak("NVIDIA L40S", 362e12, 183e12),
    # Before Ampere there is no bfloat16: XLA computes such products in float32.
    _Peak(r"(Tesla|NVIDIA) V100-PCIE", 14e12, 14e12),
    _Peak(r"(Tesla|NVIDIA) V100", 15.7e12, 15.7e12),
    _Peak("(Tesla|NVIDIA) T4", 8.1e12, 8.1e12),
    _Peak("(AMD Instinct )?MI300X", 1307.4e12, 163.4e12),  # float32: no TF32 unless asked for
)


def peak_flops(device: jax.Device, operands: str = "bfloat16") -> float | None:
    """Returns the published dense FLOP/s of a device; None for kinds not listed, and CPUs.

    Args:
      device: one of `jax.devices()`; all of a run are of one kind.
      operands: of the model's products, "bfloat16" or "float32" (`spec.operands`).
    """
    for peak in _PEAKS:
        if re.match(peak.kind, device.device_kind):
            return peak.bfloat16 if operands == "bfloat16" else peak.float32
    return None


def memory() -> dict[str, float]:
    """Returns high-water marks since the process began, in GiB.

    Returns:
      "host_memory_gib": resident memory of this process, without worker processes.
      "device_memory_gib": of the local device that held most; left out where the platform does not
        tell (CPUs).
    """
    sizes = {"host_memory_gib": _host_bytes() / _GIB}
    peaks = [peak for device in jax.local_devices() if (peak := _device_bytes(device)) is not None]
    if peaks:
        sizes["device_memory_gib"] = max(peaks) / _GIB
    return sizes


def _host_bytes() -> int:
    # On Linux from VmHWM: `ru_maxrss` survives `exec`, so that a process which a larger one
    # started would report that one's.
    status = pathlib.Path("/proc/self/status")
    if status.exists() and (match := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(match[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_bytes(device: Any) -> int | None:
    try:
        stats = device.memory_stats()
    except jax.errors.JaxRuntimeError:  # a platform that has not implemented it
        return None
    return (stats or {}).get("peak_bytes_in_use")

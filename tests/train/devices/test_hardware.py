import re
import types

import jax
import numpy as np
import pytest

from train.devices import hardware


def device(kind, stats=None):
    def memory_stats():
        if isinstance(stats, Exception):
            raise stats
        return stats

    return types.SimpleNamespace(device_kind=kind, memory_stats=memory_stats)


@pytest.mark.parametrize(
    ("kind", "bfloat16", "float32"),
    [
        ("TPU v3", 61.5e12, 61.5e12),  # a JAX device is half a chip
        ("TPU v4", 275e12, 275e12),
        ("TPU v5 lite", 197e12, 197e12),
        ("TPU v5e", 197e12, 197e12),
        ("TPU v5", 459e12, 459e12),
        ("TPU v5p", 459e12, 459e12),
        ("TPU v6 lite", 918e12, 918e12),
        ("NVIDIA A100-SXM4-40GB", 312e12, 156e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12, 494.7e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12),
        ("NVIDIA H200", 989.4e12, 494.7e12),
        ("NVIDIA H100 NVL", 835.5e12, 417.5e12),
        ("NVIDIA GH200 480GB", 989.4e12, 494.7e12),
        ("NVIDIA B200", 2250e12, 1125e12),
        ("Tesla V100-SXM2-16GB", 15.7e12, 15.7e12),
        ("Tesla V100-PCIE-32GB", 14e12, 14e12),
    ],
)
def test_published_peaks(kind, bfloat16, float32):
    assert hardware.peak_flops(device(kind)) == bfloat16
    assert hardware.peak_flops(device(kind), "float32") == float32


@pytest.mark.parametrize("kind", ["cpu", "TPU v4 lite", "NVIDIA H2000", "TPU v9", ""])
def test_other_kinds_are_not_known(kind):
    # "NVIDIA H2000" begins like a kind that is listed: a longer name may be another device.
    assert hardware.peak_flops(device(kind)) is None


def test_this_cpu_has_no_peak_and_no_device_memory():
    assert hardware.peak_flops(jax.devices()[0]) is None
    assert hardware.memory().keys() == {"host_memory_gib"}


def test_host_memory_is_a_high_water_mark():
    before = hardware.memory()["host_memory_gib"]
    assert 0.05 < before < 1000
    held = np.ones(2**26)  # half a GiB
    assert held[-1] == 1
    del held
    after = hardware.memory()["host_memory_gib"]
    assert after > 0.5
    assert after > 0.99 * before  # the kernel counts pages in batches: it may lose a few


def test_without_proc_the_operating_systems_own_count_is_taken(monkeypatch):
    class NoSuchFile:
        def __init__(self, path):
            self.path = path

        def exists(self):
            return False

    true = hardware.memory()["host_memory_gib"]
    monkeypatch.setattr(hardware.pathlib, "Path", NoSuchFile)
    assert hardware.memory()["host_memory_gib"] == pytest.approx(true, rel=0.5)


def test_device_memory_is_that_of_the_fullest(monkeypatch):
    found = [device("x", {"peak_bytes_in_use": n * 2**30}) for n in (3, 5, 4)]
    broken = device("x", jax.errors.JaxRuntimeError("UNIMPLEMENTED"))
    monkeypatch.setattr(jax, "local_devices", lambda: [*found, device("x", {}), broken])
    assert hardware.memory()["device_memory_gib"] == 5


def test_patterns_are_ordered_from_special_to_general():
    # No pattern is shadowed by an earlier one: each row can be reached by its own words.
    kinds = [re.sub(r"\(([^|)]*)[^)]*\)|\\b|[$?]", r"\1", peak.kind) for peak in hardware._PEAKS]
    for kind, peak in zip(kinds, hardware._PEAKS, strict=True):
        assert hardware.peak_flops(device(kind)) == peak.bfloat16, kind

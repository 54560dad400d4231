"""Freed memory is kept: arrays that come and go cost no pages."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is of glibc's malloc")

_SCRIPT = """
import resource, sys
import numpy as np
from data import memory

print(memory.keep_freed())
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        arrays = [np.ones(5_000_000, np.uint8) for _ in range(3)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
_PAGES = 50 * 3 * 5_000_000 // 4096


def run(**environment):
    words = [sys.executable, "-c", _SCRIPT]
    clean = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "GLIBC_TUNABLES"}
    done = subprocess.run(words, env=clean | environment, capture_output=True, check=True)
    was_set, faults = done.stdout.split()
    return was_set == b"True", int(faults)


def test_arrays_that_come_and_go_fault_no_pages():
    was_set, faults = run()
    assert was_set
    assert faults < _PAGES / 100


def test_the_environment_of_the_user_wins():
    was_set, faults = run(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert not was_set
    assert faults > _PAGES / 10  # NumPy asks for huge pages, which are fewer

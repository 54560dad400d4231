"""`python -m train` on digits of which one cannot be read; started by test_faults.py.

Usage: python tests/train/faulty_data.py --config=... --workdir=...
"""

import runpy

from data.images import digits


class Faulty(digits.Digits):
    """Fails in whatever process reads example 500."""

    def example(self, index, epoch):
        if index == 500:
            raise OSError(5, f"the disk of example {index} does not answer")
        return super().example(index, epoch)


if __name__ == "__main__":
    digits.Digits = Faulty
    runpy.run_module("train", run_name="__main__", alter_sys=True)

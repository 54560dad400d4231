"""Measurements of the library and the trainer, each beside what it is compared with.

Run as `python -m benchmarks.NAME`; `--smoke` takes seconds, `--help` lists the options. The figures
that were measured are in docs/benchmarks.md.
"""

"""Experiments: what these models learn, at small size, beside other systems.

Run as `python -m experiments.NAME`; each has a page with its numbers in docs/experiments/.
"""

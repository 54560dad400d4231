"""Prepares data sets as TFDS's array_record files: `python -m data.prepare`.

Nothing here is imported by reading or training; `tfds:NAME` reads what was prepared.
"""

"""Checkpoints on disk or in an object store: atomic, checked, saved in the background.

Imports `devices`.
"""

"""Losses, metrics and mixing of examples.

Pure functions of arrays; imports nothing else of `train`.
"""

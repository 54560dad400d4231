"""LAMB and AdamW per layer, learning-rate schedules.

Imports nothing else of `train`.
"""

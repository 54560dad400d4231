"""DeepMind's released checkpoints: pickled parameters of Haiku 0.0.4."""

from perceiver.weights.deepmind_names import rules

__all__ = ["rules"]

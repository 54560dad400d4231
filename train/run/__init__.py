"""A run from its start to its end: its parts, its folder, its initial weights, its saves.

Imports everything of `train` but the loop and the commands.
"""

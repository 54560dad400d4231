"""Texts with labels, pairs and triplets of texts, from TFDS, tables and the standard library.

Imports the top-level modules of `data`, `text` and `images`.
"""

"""Sets of pictures and what is done to a picture before a model sees it.

Imports the top-level modules of `data`.
"""

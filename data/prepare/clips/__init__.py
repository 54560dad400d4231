"""Media files and tables of segments -> a TFDS data set of clips.

Imports `data.clips`, and the modules of `data.prepare` itself.
"""

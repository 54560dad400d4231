"""Data sets that are drawn: glyphs of fonts, scenes of picture and sound.

Imports `data.prepare.clips`, which records the scenes.
"""

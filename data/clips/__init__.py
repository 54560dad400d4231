"""Clips of picture and sound: records, windows, augmentation, class balance.

Imports the top-level modules of `data` and `images`.
"""

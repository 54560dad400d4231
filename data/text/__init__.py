"""Text without labels: stores, windows and crops, tokenising, masking.

Imports the top-level modules of `data`.
"""

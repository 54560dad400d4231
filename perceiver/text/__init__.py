"""Text on the host: bytes or subwords to ids, rows of ids, batches of about one length.

Imports numpy only.
"""

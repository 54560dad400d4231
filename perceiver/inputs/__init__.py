"""Preprocessors: raw inputs -> ByteArray."""

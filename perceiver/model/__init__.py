"""Encoder, Processor and Decoder, and the Perceiver that they make.

Imports `nn`, `attention` and `cross_attention`.
"""

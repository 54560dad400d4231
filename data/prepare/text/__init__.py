"""Text files, tables and data sets -> stores of text; SentencePiece models.

Imports `data.text`.
"""

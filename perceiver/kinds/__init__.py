"""The kinds of model: their specs, how each is built, and the sizes of the papers.

Imports the layers of the model (`nn` to `outputs`), `text` and `media`; no weights and no files.
`configs/` knows `released` and `specs` only.
"""

"""Output heads: latents -> predictions.

A head is a module with

  __call__(latents, *, is_training, **options) -> predictions
  queries(latents, **options) -> {output: ByteArray}, what its decoder is asked
  read(latents, queries, *, is_training) -> {output: [B, o, ...]}, a row for each query given
  plans(latents, **options) -> {decoder: Plan}, which path that takes

where the options are what the kind of model lets its inputs decide, such as a length. Predictions
are the rows of all queries in their natural shape; so some queries at a time give the same numbers.
"""

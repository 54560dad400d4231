"""DeepNet's claims in small: does a stack of 1,000 layers train, and what does its depth cost?

    python -m benchmarks.deepnet [PART ...] [--folder runs/deepnet] [--json FILE] [--smoke]

PART is one of (default: all)
  training   1,000 layers on `stdlib_text` by the training loop (`configs/masked_lm.py:deepnet`),
             DeepNorm beside post-norm and pre-norm, and a Perceiver with 100 layers on its latents;
             same data, optimiser, steps and seed. What is interrupted goes on where it stopped.
  update     how far updates move the output, against depth, beside the bound of theorem 4.2
  memory     temporary memory of a gradient against depth, for each choice of remat

What a part finds is kept in FOLDER/PART.json, out of which the tables and FOLDER/deepnet.png come:
parts may be run one by one. Each part is a module; `picture` draws what is found.
"""

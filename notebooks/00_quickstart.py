# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train a Perceiver IO, use it, and look at what it attends to
#
# A small Perceiver IO learns 1,797 real handwritten digits of 8x8 pixels: every pixel, with the
# Fourier features of its position, is one element of the byte array, and 32 latents read all 64.
# Training takes a few minutes on two CPU cores. Run this notebook from a checkout of the project.

# %%
# @title Setup
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path.cwd().resolve()
ROOT = ROOT if (ROOT / "train").is_dir() else ROOT.parent
sys.path.insert(0, str(ROOT))  # train, data and configs are run from the checkout
SMOKE = bool(os.environ.get("CI"))  # two steps of a tiny model, to try the notebook itself

# %%
# @title The experiment: a config that can be changed like any Python value
from configs import digits

config = digits.get_config("fourier,smoke" if SMOKE else "fourier")
config.placement = "single"
print(config.model)

# %%
# @title A summary of the model
from perceiver import describe, summary

print(describe.render("digits", summary.summarize(config.model.to_dict())))

# %%
# @title Train
from train import loop

folder = pathlib.Path(tempfile.mkdtemp()) / "run"
results = loop.run(config, folder)
results

# %%
# @title The curves
from IPython.display import Image

Image(filename=folder / "curves.png")

# %% [markdown]
# ## Predict
# The run exported its model into `model/`. Using it needs only the library `perceiver`; from the
# command line it is `python -m perceiver.predict RUN IMAGE...`.

# %%
import perceiver

model = perceiver.load(folder)
files = sorted((folder / "samples").glob("*.png"))
for file, labels in zip(files, model.classify(files, top_k=3), strict=True):
    print(file.name, labels)

# %% [markdown]
# ## Look at attention
# One row per image: the mean over all latents, and the latents with the sharpest attention.

# %%
Image(filename=folder / "attention.png")

# %% [markdown]
# The weights themselves, for your own analysis: for each cross-attend an array
# `[batch, heads, latents, height, width]`.

# %%
import numpy as np

(maps,) = model.attention_maps(files)
assert np.allclose(maps["image"].sum(axis=(-2, -1)), 1, atol=1e-5)
maps["image"].shape

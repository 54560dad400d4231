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
# # Classify images with the three released ImageNet models
#
# One architecture, three ways to encode the position of a pixel: Fourier features (no assumptions
# about images at all), learned positions, or a convolution before the Perceiver.

# %%
# @title Setup
import importlib.util
import os
import pathlib
import subprocess
import sys

SOURCE = ""  # @param {type:"string"}
# On Colab: the address of this repository (git+https://...) or of a wheel, to install from.
if importlib.util.find_spec("google.colab") and not importlib.util.find_spec("perceiver"):
    wanted = f"perceiver[hub] @ {SOURCE}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", wanted], check=True)
ROOT = pathlib.Path.cwd().resolve()
ROOT = ROOT if (ROOT / "perceiver").is_dir() else ROOT.parent
sys.path.insert(0, str(ROOT))  # in a checkout, which need not be installed
SMOKE = bool(os.environ.get("CI"))  # a small untrained model, to try the notebook itself

# %%
# @title The models: the released weights, or small untrained models when offline
import perceiver

NAMES = ["imagenet-fourier", "imagenet-learned", "imagenet-conv"]
small = {
    "kind": "image_classifier",
    "image_shape": (32, 32, 3),
    "classes": 1000,
    "latents": 16,
    "latent_channels": 32,
    "layers": 1,
    "self_heads": 4,
    "query_channels": 32,
}
OWN = [
    {"bands": 8},
    {"stem": "conv1x1", "stem_channels": 8, "positions": "learned", "position_channels": 8},
    {"stem": "conv", "stem_channels": 8, "bands": 4},
]
try:
    if SMOKE:
        models = [perceiver.fresh(small | own) for own in OWN]
    else:
        models = [perceiver.load(name) for name in NAMES]
except ConnectionError as error:
    print(error)
    models = [perceiver.fresh(small | own) for own in OWN]
for name, model in zip(NAMES, models, strict=True):
    print(f"{name}: this is {model.source}")

# %%
# @title An image: yours, or a synthetic one
import numpy as np
from PIL import Image

FILE = ""  # @param {type:"string"}
if FILE:
    picture = Image.open(FILE).convert("RGB")
else:
    rows, columns = np.mgrid[:256, :320]
    spots = (np.hypot(rows % 64 - 32, columns % 64 - 32) < 18) * 200
    picture = Image.fromarray(np.repeat(255 - spots[..., None], 3, axis=-1).astype(np.uint8))
picture

# %%
for name, model in zip(NAMES, models, strict=True):
    print(name)
    for label, probability in model.classify(picture, top_k=5):
        print(f"   {probability:6.1%}  {label}")

# %% [markdown]
# ## What the latents attend to
# The mean over all latents, and the latents with the sharpest attention; each model has its own
# grid.

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(len(models), 6, figsize=(12, 2.2 * len(models)), squeeze=False)
for panels, name, model in zip(axes, NAMES, models, strict=True):
    weights = model.attention_maps(picture)[0]["image"][0].mean(axis=0)  # [N, h, w]
    flat = weights.reshape(len(weights), -1)
    sharpest = np.argsort(-(flat * np.log(flat + 1e-12)).sum(axis=-1))[:5]
    for panel, image in zip(panels, [weights.mean(axis=0), *weights[sharpest]], strict=True):
        panel.imshow(image, cmap="magma")
        panel.set_axis_off()
    panels[0].set_title(name, fontsize=8)
plt.show()

# %% [markdown]
# ## Another size
# Fourier positions are computed for any grid; learned positions are interpolated.

# %%
height, width = (40, 48) if models[0].spec.image_shape[0] < 224 else (256, 320)
for name, model in zip(NAMES, models, strict=True):
    print(name, model.resized(height, width).classify(picture, top_k=2))

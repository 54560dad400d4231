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
# # Fill in masked bytes, and see what the latents attend to
#
# Perceiver IO's language model reads UTF-8 bytes: no tokenizer, any script. 201 million parameters,
# 256 latents, 26 layers. It was trained to fill in masked bytes.

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
# @title The model: the released weights, or a small untrained model when offline
import perceiver

small = {
    "kind": "masked_lm",
    "max_length": 256,
    "embedding_channels": 64,
    "latents": 32,
    "latent_channels": 64,
    "layers": 2,
    "cross_heads": 4,
    "cross_qk_channels": 32,
    "self_heads": 4,
    "query_heads": 4,
    "query_qk_channels": 32,
}
try:
    model = perceiver.fresh(small) if SMOKE else perceiver.load("masked-lm-bytes")
except ConnectionError as error:
    print(error)
    model = perceiver.fresh(small)
print("This is", model.source)
model.config

# %%
# @title Fill in: [MASK] is one byte, [MASK:9] is nine
filled = model.fill_mask("This is an incomplete sentence where some words are[MASK:9]")
for span in filled.spans:
    print(f"bytes {span.start}-{span.stop}: {span.text!r}, probability {span.probability:.2g}")
filled.text

# %% [markdown]
# Each byte has its own candidates, given everything that is not masked:

# %%
for candidates in filled.spans[0].candidates:
    print("  ".join(f"{byte!r} {probability:.2f}" for byte, probability in candidates))

# %% [markdown]
# Several texts at once, with spans instead of marks:

# %%
texts = ["The capital of France is Paris.", "Ein Satz auf Deutsch, mit Umlauten: schön."]
for filled in model.fill_mask(texts, spans=[[(25, 30)], [(4, 8)]]):
    print(filled.text)

# %% [markdown]
# ## What the latents attend to
# One row for each of the latents with the sharpest attention, one column per byte; heads averaged.

# %%
import matplotlib.pyplot as plt
import numpy as np

text = "Perceivers map any input to a small array of latents."
weights = model.attention_maps(text)[0]["text"][0, :, :, : len(text)].mean(axis=0)  # [N, M]
entropy = -(weights * np.log(weights + 1e-9)).sum(axis=-1)
sharpest = np.argsort(entropy)[:12]
figure, panel = plt.subplots(figsize=(12, 3))
panel.imshow(weights[sharpest], aspect="auto", cmap="magma")
panel.set_xticks(range(len(text)), text)
panel.set_yticks(range(len(sharpest)), [f"latent {i}" for i in sharpest])
plt.show()

# %% [markdown]
# ## Embeddings
# The mean of the latents, for downstream tasks; `pool=None` returns all of them.

# %%
embedded = model.embed(["a cat sat on the mat", "a dog lay on the rug", "stocks fell sharply"])
normed = embedded / np.linalg.norm(embedded, axis=-1, keepdims=True)
np.round(normed @ normed.T, 3)

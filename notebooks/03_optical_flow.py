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
# # Optical flow: how each pixel moved between two frames
#
# Perceiver IO's flow model reads 3x3 patches of both frames, and predicts the motion of every pixel
# with that pixel's own features as the query. Frames of any size are cut into overlapping tiles.

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
    "kind": "optical_flow",
    "frame_shape": (32, 48, 3),
    "patch_channels": 16,
    "bands": 8,
    "latents": 32,
    "latent_channels": 32,
    "layers": 2,
    "self_heads": 4,
}
try:
    model = perceiver.fresh(small) if SMOKE else perceiver.load("optical-flow")
except ConnectionError as error:
    print(error)
    model = perceiver.fresh(small)
print("This is", model.source)
model.config

# %%
# @title Two frames: yours, or moving noise
import numpy as np
from PIL import Image

FRAME1 = ""  # @param {type:"string"}
FRAME2 = ""  # @param {type:"string"}
if FRAME1 and FRAME2:
    frames = [np.asarray(Image.open(file).convert("RGB")) for file in (FRAME1, FRAME2)]
else:
    height, width, _ = model.spec.frame_shape
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    texture = Image.fromarray(noise).resize((width + 60, height + 40), Image.Resampling.BICUBIC)
    texture = np.asarray(texture)
    corners = [(20, 30), (17, 24)]  # so things move 3 down, 6 to the right
    frames = [texture[y : y + height, x : x + width] for y, x in corners]
print([frame.shape for frame in frames])

# %%
flow = model.flow(*frames)  # [H, W, 2]: pixels to the right, pixels down
print("median motion:", np.median(flow.reshape(-1, 2), axis=0))

# %%
# @title The hue is the direction, the saturation the speed
import matplotlib.pyplot as plt

from perceiver.media.flow_picture import flow_picture

figure, axes = plt.subplots(1, 3, figsize=(14, 4))
for panel, image, title in zip(
    axes, [*frames, flow_picture(flow)], ["frame 1", "frame 2", "flow"], strict=True
):
    panel.imshow(image)
    panel.set_title(title)
    panel.set_axis_off()
plt.show()

# %% [markdown]
# From the command line: `python -m perceiver.predict optical-flow FRAME1 FRAME2 --out flow.png`
# (or `.flo`, `.npy`).

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
# # Autoencoding a video with audio and a class label
#
# 16 frames of 224x224, 30,720 audio samples and a class label are encoded into 784 latents and
# decoded again: 803,297 outputs of three kinds, from one decoder. The label is masked, so the model
# decodes a classification in its place.

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
    wanted = f"perceiver[hub,media] @ {SOURCE}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", wanted], check=True)
ROOT = pathlib.Path.cwd().resolve()
ROOT = ROOT if (ROOT / "perceiver").is_dir() else ROOT.parent
sys.path.insert(0, str(ROOT))  # in a checkout, which need not be installed
SMOKE = bool(os.environ.get("CI"))  # a small untrained model, to try the notebook itself

# %%
# @title The model: the released weights, or a small untrained model when offline
import perceiver

small = {
    "kind": "video_autoencoder",
    "video_shape": (4, 16, 16, 3),
    "samples": 256,
    "classes": 7,
    "video_bands": 4,
    "audio_bands": 8,
    "label_query_channels": 32,
    "decoder_channels": 32,
    "latents": 16,
    "latent_channels": 32,
    "layers": 2,
    "self_heads": 4,
}
try:
    model = perceiver.fresh(small) if SMOKE else perceiver.load("video-autoencoder")
except ConnectionError as error:
    print(error)
    model = perceiver.fresh(small)
print("This is", model.source)
model.config

# %%
# @title A clip: yours (needs PyAV), or a moving disc with a tone
import numpy as np

FILE = ""  # @param {type:"string"}
frames, height, width, _ = model.spec.video_shape
if FILE:
    from perceiver.media import video_files

    video, audio = video_files.read(
        FILE, (height, width), frames_per_second=25, sample_rate=48_000, seconds=frames / 25
    )
else:
    rows, columns = np.mgrid[:height, :width]
    video = np.zeros((frames, height, width, 3), np.uint8)
    for i in range(frames):
        disc = np.hypot(rows - height / 2, columns - width * (i + 1) / (frames + 1)) < height / 5
        video[i] = np.where(disc[..., None], (240, 160, 30), (30, 60, 90))
    audio = 0.4 * np.sin(2 * np.pi * 440 * np.arange(model.spec.samples) / 48_000)

# %%
found = model.autoencode(video, audio)
print(found.video.shape, found.audio.shape)
for label, probability in found.labels:
    print(f"{probability:6.1%}  {label}")

# %%
import matplotlib.pyplot as plt

shown = np.linspace(0, len(video) - 1, 4).astype(int)
figure, axes = plt.subplots(3, 4, figsize=(12, 8))
for column, i in enumerate(shown):
    axes[0, column].imshow(video[i])
    axes[0, column].set_title(f"frame {i}")
    axes[1, column].imshow(found.video[i])
    axes[1, column].set_title("reconstruction")
for panel, sound, title in zip(
    axes[2], [audio, found.audio], ["sound", "reconstruction"], strict=False
):
    panel.plot(sound, linewidth=0.4)
    panel.set_title(title)
for panel in axes[2, 2:]:
    panel.set_axis_off()
plt.show()

# %% [markdown]
# From the command line: `python -m perceiver.predict video-autoencoder CLIP.mp4 --out again.mp4`.

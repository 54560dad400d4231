"""A picture of where a model's latents look, in memory that does not grow with its stages.

One map of a full-size model, 512 latents by 50,176 pixels, takes 98 MiB, and a Perceiver has eight
for each image. So images are looked at one by one, only the first and the last cross-attend, and
the device hands over averages and the few latents that are drawn.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import perceiver

LATENTS = 6  # shown per image and cross-attend


@dataclasses.dataclass(frozen=True)
class StageAttention:
    """What the latents of one cross-attend look at in B images; heads are averaged."""

    name: str  # first, last
    latents: int  # N
    mean: np.ndarray  # [B, M], of all latents
    shown: tuple[int, ...]  # the latents that look most sharply: least entropy over the images
    maps: np.ndarray  # [B, len(shown), M], of those


def collect(
    model: perceiver.Model, params: Any, net_state: Any, images: np.ndarray
) -> list[StageAttention]:
    """Returns where the first and the last cross-attend look (they are one in Perceiver IO).

    Nothing of a model without latents.

    Args:
      model: an image classifier.
      params: its parameters.
      net_state: its network state.
      images: [B, H, W, C] as the model gets them.
    """
    summarise, pick = jax.jit(_summarise(model)), jax.jit(_pick(model))
    each = [{"image": image[None]} for image in images]
    summaries = [jax.device_get(summarise(params, net_state, inputs)) for inputs in each]
    if not summaries[0]:
        return []
    # [B] of (mean, entropy) for each stage -> the sharpest latents of each stage
    entropies = np.mean([[entropy for _, entropy in stages] for stages in summaries], axis=0)
    chosen = np.argsort(entropies, axis=1, kind="stable")[:, :LATENTS]
    maps = [jax.device_get(pick(params, net_state, inputs, chosen)) for inputs in each]
    return [
        StageAttention(
            name=name,
            latents=entropies.shape[1],
            mean=np.stack([stages[index][0] for stages in summaries]),
            shown=tuple(chosen[index].tolist()),
            maps=np.stack([stages[index] for stages in maps]),
        )
        for index, name in enumerate(("first", "last")[: len(maps[0])])
    ]


def ends(model: perceiver.Model) -> Callable[..., list[jax.Array]]:
    """Returns `(params, net_state, inputs) -> [first, last]`, [first] or []: maps [B, N, M].

    To be used within `jax.jit`: the maps of the stages between are then never computed.
    """

    def run(params, net_state, inputs):
        maps = model.attention_maps(params, net_state, inputs)  # of all stages, [B, H, N, M] each
        return [stage.mean(axis=1) for stage in (*maps[:1], *maps[1:][-1:])]

    return run


def _summarise(model: perceiver.Model) -> Callable:
    def run(params, net_state, inputs):  # -> for each stage (mean [M], entropy [N])
        stages = [maps[0] for maps in ends(model)(params, net_state, inputs)]  # [N, M]
        return [(p.mean(axis=0), jax.scipy.special.entr(p).sum(axis=1)) for p in stages]

    return run


def _pick(model: perceiver.Model) -> Callable:
    def run(params, net_state, inputs, chosen):  # int [stages, n] -> for each stage [n, M]
        stages = ends(model)(params, net_state, inputs)
        return [maps[0][which] for maps, which in zip(stages, chosen, strict=True)]

    return run


def draw(path: Path, images: np.ndarray, stages: Sequence[StageAttention]) -> Path:
    """Draws images [B, H, W, C] in [0, 1] beside what latents look at in them; returns the path.

    For each cross-attend, the mean over all latents and those that look most sharply. Maps must be
    of a grid of the image's proportions: pixels, or what a stem leaves of them.
    """
    columns = 1 + sum(1 + len(stage.shown) for stage in stages)
    figure = Figure(figsize=(1.15 * columns, 1.15 * len(images) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), columns, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, image in zip(axes[:, 0], images, strict=True):
        panel.imshow(image.squeeze(), cmap="gray" if image.shape[-1] == 1 else None)
    axes[0, 0].set_title("image", fontsize=7)
    first = 1
    for stage in stages:
        where = f"{stage.name} cross-attend\n" if len(stages) > 1 else ""
        shown = {f"{where}all {stage.latents} latents": stage.mean}
        shown |= {
            f"{where}latent {latent}": stage.maps[:, place]
            for place, latent in enumerate(stage.shown)
        }
        for column, (title, maps) in enumerate(shown.items(), start=first):
            axes[0, column].set_title(title, fontsize=7)
            for panel, grid in zip(axes[:, column], _grids(maps, images.shape), strict=True):
                panel.imshow(grid, cmap="magma")
        first += len(shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _grids(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:  # [B, M] -> [B, h, w]
    height, width = shape[1:3]
    factor = round((height * width / maps.shape[-1]) ** 0.5)  # of a stem: 4, else 1
    return maps.reshape(len(maps), -(-height // factor), -(-width // factor))

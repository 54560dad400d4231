"""Mixup and cutmix of a batch, on the device (Perceiver IO, appendix A.1).

Every example is mixed with a partner of the same half of the batch, at a ratio of its own:

    mixup   (Zhang et al. 2018, arXiv:1710.09412)   a weighted mean of both pictures
    cutmix  (Yun et al. 2019, arXiv:1905.04899)     a box of the partner's picture in its own

and its label becomes a distribution: the partner's class gets the partner's share of the pixels.
The paper's runs mix one half of a device's batch in each way, with Beta(0.2, 0.2) and Beta(1, 1).

Their released code (deepmind-research, `perceiver/train/dataset.py`) reads two batches to make one.
Here each example is once an owner and once a partner, and no picture is read that is not trained
on. The pictures are normalised already: both mixes are weighted means with weights that sum to 1,
and those pass unchanged through the subtraction of a mean and the division by a deviation.
"""

import math

import jax
import jax.numpy as jnp


def check(**alphas: float) -> None:
    """Raises a ValueError unless each alpha of a Beta(alpha, alpha) is finite and at least 0."""
    for name, alpha in alphas.items():
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"loss.{name}={alpha} must be finite and at least 0 (0 = off)")


def mix(
    rng: jax.Array,
    images: jax.Array,  # float [B, H, W, C]
    labels: jax.Array,  # int [B]
    mask: jax.Array,  # bool [B], True = real
    classes: int,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # [B, H, W, C], f32 [B, K], bool [B]
    """Mixes the examples of a batch in pairs.

    With both alphas above 0 the first half (the larger one of an odd batch) is mixed by mixup and
    the second by cutmix; with one of them all of the batch; with none nothing changes.

    Args:
        rng: Decides ratios and boxes. Partners are neighbours: batches are shuffled already.
        images: Of any scale and offset.
        labels: Classes.
        mask: An example that is not real, or whose partner is not, stays as it is.
        classes: K.
        mixup_alpha: Of the Beta distribution of the partner's weight; 0: no mixup.
        cutmix_alpha: Of the partner's share of the picture, before the box is clipped; 0: none.

    Returns:
        Images, distributions over classes that sum to 1 (NaN for a label outside 0..K-1), and the
        mask. No gradient flows through them.
    """
    size, height, width = images.shape[:3]
    owned = _one_hot(labels, classes)  # [B, K]
    if not mixup_alpha and not cutmix_alpha:
        return images, owned, mask
    halfway = (size + 1) // 2 if mixup_alpha and cutmix_alpha else size
    for_mixup, for_cutmix = jax.random.split(rng)
    parts = []  # (the partner's weight in each pixel [b, H, W], its share of the picture [b])
    if mixup_alpha:
        parts.append(_blends(for_mixup, (halfway, height, width), mixup_alpha))
    if cutmix_alpha:
        boxed = size - halfway if mixup_alpha else size
        parts.append(_boxes(for_cutmix, (boxed, height, width), cutmix_alpha))
    pixels, shares = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    is_mixed = mask & _partners(mask, halfway)  # [B]
    pixels = jnp.where(is_mixed[:, None, None], pixels, 0.0)[..., None]  # [B, H, W, 1]
    shares = jnp.where(is_mixed, shares, 0.0)[:, None]  # [B, 1]

    def blend(own, other, weight):
        # Not the sum where the weight is 0: what a mask hides may even be NaN.
        return jnp.where(weight > 0, (1 - weight) * own + weight * other, own)

    mixed = blend(images, _partners(images, halfway), pixels.astype(images.dtype))
    distributions = blend(owned, _partners(owned, halfway), shares)
    return jax.lax.stop_gradient((mixed, distributions, mask))


def _partners(x: jax.Array, halfway: int) -> jax.Array:  # [B, ...] -> [B, ...]
    """Puts in each row the next one of its half, cyclically; alone in a half, a row meets itself.

    A roll within the half, as slices: under a mesh, pictures move between devices and are never
    gathered on one.
    """
    return jnp.concatenate([jnp.roll(x[:halfway], -1, axis=0), jnp.roll(x[halfway:], -1, axis=0)])


def _blends(
    rng: jax.Array, shape: tuple[int, int, int], alpha: float
) -> tuple[jax.Array, jax.Array]:  # f32 [b, H, W], f32 [b]
    """Draws mixup's weight of the partner: one for all pixels of an example."""
    shares = jax.random.beta(rng, alpha, alpha, shape[:1])
    return jnp.broadcast_to(shares[:, None, None], shape), shares


def _boxes(
    rng: jax.Array, shape: tuple[int, int, int], alpha: float
) -> tuple[jax.Array, jax.Array]:  # f32 [b, H, W], f32 [b]
    """Draws cutmix's boxes: 1.0 within an example's box and 0.0 outside.

    The box has the picture's proportions and, before it is clipped, the partner's share of its
    area; its centre is anywhere in the picture. The share that counts is the area after clipping.
    """
    size, height, width = shape
    for_share, for_rows, for_columns = jax.random.split(rng, 3)
    side = jnp.sqrt(jax.random.beta(for_share, alpha, alpha, (size,)))

    def within(key, length):  # -> bool [b, length]
        centre = jax.random.randint(key, (size,), 0, length)
        # An even number of pixels around the centre, as in the released code.
        reach = (side * length).astype(jnp.int32) // 2
        places = jnp.arange(length)[None]
        return (places >= (centre - reach)[:, None]) & (places < (centre + reach)[:, None])

    rows, columns = within(for_rows, height), within(for_columns, width)
    area = rows.sum(axis=1) * columns.sum(axis=1)
    boxes = rows[:, :, None] & columns[:, None, :]
    return boxes.astype(jnp.float32), area / (height * width)


def _one_hot(labels: jax.Array, classes: int) -> jax.Array:  # int [B] -> f32 [B, K]
    known = (labels >= 0) & (labels < classes)
    return jnp.where(known[:, None], jax.nn.one_hot(labels, classes), jnp.nan)

"""Losses per example, in float32 whatever the model computes in, and their masked sums.

Nothing here takes a mean. A loss over a masked batch is a pair (sum, weight): such pairs add up
over micro-batches, devices and batches, and dividing once at the end is exact where a mean of means
is not.
"""

import jax
import jax.numpy as jnp


def softmax_cross_entropy(
    logits: jax.Array,  # [..., K]
    labels: jax.Array,  # int [...], or a distribution [..., K]
    *,
    label_smoothing: float = 0.0,
) -> jax.Array:  # f32 [...]
    """Cross-entropy of softmax(logits) against labels, in nats.

    Args:
        logits: Unnormalised log-probabilities, of any float dtype.
        labels: Classes, or distributions over classes that sum to 1 (mixup, distillation). A class
            outside 0..K-1 gives NaN, so that it stops a run rather than biasing it; under a mask
            it does no harm.
        label_smoothing: The part of each label that is spread evenly over all K classes (Szegedy et
            al. 2016, section 7; the paper's ImageNet runs use 0.1).

    Raises:
        ValueError: If the shapes do not fit or the smoothing is not in [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing} must be at least 0 and below 1")
    logits = logits.astype(jnp.float32)
    log_total = jax.nn.logsumexp(logits, axis=-1)  # [...]
    if jnp.issubdtype(labels.dtype, jnp.integer):
        target = pick(logits, labels)  # [...]
    else:
        if labels.shape != logits.shape:
            raise ValueError(
                f"label distributions {labels.shape} must have the shape of the logits "
                f"{logits.shape}; pass classes as integers"
            )
        target = jnp.sum(labels.astype(jnp.float32) * logits, axis=-1)  # [...]
    # sum_k label_k (log_total - logit_k), where the smoothed labels too sum to 1.
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing * jnp.mean(logits, axis=-1)
    return log_total - target


def sigmoid_cross_entropy(
    logits: jax.Array,  # [..., K]
    labels: jax.Array,  # bool [..., K]
) -> jax.Array:  # f32 [...]
    """Cross-entropy of K yes-or-no questions, their mean, in nats (Perceiver, section 4.2).

    Raises:
        ValueError: If the labels are not bool, or of another shape than the logits.
    """
    _check_tags(logits, labels)
    logits = logits.astype(jnp.float32)
    # -log sigmoid(x) where the answer is yes, -log sigmoid(-x) where it is no.
    return jnp.mean(jax.nn.softplus(jnp.where(labels, -logits, logits)), axis=-1)


def averaged_sigmoid_cross_entropy(
    logits: jax.Array,  # [V, ..., K]
    labels: jax.Array,  # bool [..., K]
) -> jax.Array:  # f32 [...]
    """The same of scores averaged over V views: -log of the mean of their sigmoids.

    Through logarithms, so that it stays finite however sure the views are.

    Raises:
        ValueError: If the labels are not bool, or of another shape than a view's logits.
    """
    _check_tags(logits[0], labels)
    logits = logits.astype(jnp.float32)
    signed = jnp.where(labels[None], logits, -logits)  # [V, ..., K]
    total = jax.nn.logsumexp(jax.nn.log_sigmoid(signed), axis=0)  # [..., K]
    return jnp.mean(jnp.log(jnp.float32(len(logits))) - total, axis=-1)


def _check_tags(logits: jax.Array, labels: jax.Array) -> None:
    if labels.dtype != bool or labels.shape != logits.shape:
        raise ValueError(
            f"labels must be bool of shape {logits.shape}, got {labels.dtype} {labels.shape}"
        )


def pick(values: jax.Array, labels: jax.Array) -> jax.Array:  # [..., K], int [...] -> [...]
    """Takes from each row the value of its label: NaN where there is no such class.

    Raises:
        ValueError: If the shape of the labels is not that of the rows.
    """
    if labels.shape != values.shape[:-1]:
        raise ValueError(
            f"labels {labels.shape} must have the shape of the logits {values.shape} "
            "without the last axis"
        )
    classes = values.shape[-1]
    # Negative indices count from the end in JAX: move them out of range instead.
    labels = jnp.where(labels < 0, classes, labels)
    picked = jnp.take_along_axis(values, labels[..., None], -1, mode="fill", fill_value=jnp.nan)
    return picked[..., 0]


def masked_sum(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums the values that count, and counts them.

    Args:
        values: Of any float or bool dtype and any shape. What the mask hides may even be NaN.
        mask: bool, of the same shape; True = counts.

    Returns:
        (sum, weight), both f32[].

    Raises:
        ValueError: If the shapes differ or the mask is not bool.
    """
    if mask.dtype != bool or mask.shape != values.shape:
        raise ValueError(
            f"the mask must be bool of shape {values.shape}, got {mask.dtype} {mask.shape}"
        )
    kept = jnp.where(mask, values.astype(jnp.float32), 0.0)
    return jnp.sum(kept), jnp.sum(mask, dtype=jnp.float32)

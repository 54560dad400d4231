"""How far random features are from the softmax: of single kernel values, and of whole attentions.

Kernel values are compared with the paper's closed forms (2009.14794, equation 8); the attention is
that of its figure 4: 4,096 queries and keys of 16 channels.
"""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.attention import favor, random_features, reference

KINDS = ("positive", "hyperbolic", "trigonometric")
LENGTH, CHANNELS, FEATURES, DRAWS = 4096, 16, (16, 64, 256, 1024), 8
SCALES = (0.5, 1.0)  # standard deviations of queries and keys
ANGLES = np.linspace(0.2, 3.0, 8)
KERNEL_DRAWS, KERNEL_FEATURES, KERNEL_LENGTH = 20_000, 4, 0.5


def kernel_rows() -> list[dict]:
    """Returns squared errors of kernel values at some angles, measured and by the closed form."""
    x, y = np.zeros((2, len(ANGLES), CHANNELS), np.float32)
    x[:, 0] = KERNEL_LENGTH
    y[:, 0], y[:, 1] = KERNEL_LENGTH * np.cos(ANGLES), KERNEL_LENGTH * np.sin(ANGLES)
    rows, truth = [], np.exp(np.sum(x * y, axis=-1))
    for orthogonal in (False, True):
        draw = functools.partial(
            random_features.directions,
            features=KERNEL_FEATURES,
            channels=CHANNELS,
            orthogonal=orthogonal,
        )
        w = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), KERNEL_DRAWS))
        for kind in KINDS:
            one = functools.partial(random_features.estimate, kind, x[None, None], y[None, None])
            found = np.asarray(jax.jit(jax.vmap(one))(w))[:, 0, 0]  # [draws, angles]
            expected = random_features.mean_squared_error(kind, x, y, KERNEL_FEATURES)
            for i, angle in enumerate(ANGLES):
                rows.append(
                    {
                        "kind": kind,
                        "orthogonal": orthogonal,
                        "angle": float(angle),
                        "measured": float(np.mean((found[:, i] - truth[i]) ** 2)),
                        "closed_form": float(expected[i]),
                    }
                )
    return rows


def attention_rows(length: int = LENGTH, features: tuple[int, ...] = FEATURES) -> list[dict]:
    """Returns mean squared errors of the result, relative to its mean square: medians of draws."""
    return [
        {"scale": scale, **row} for scale in SCALES for row in _attention(scale, length, features)
    ]


def _attention(scale: float, length: int, features: tuple[int, ...]) -> list[dict]:
    rng = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(size * rng.standard_normal((1, length, 1, CHANNELS), np.float32))
        for size in (scale, scale, 1.0)
    )
    truth = reference.attend(q, k, v)
    square, rows = jnp.mean(truth**2), []
    keys = jax.random.split(jax.random.key(0), DRAWS)
    for m in features:
        for kind in KINDS:
            attend = jax.jit(functools.partial(favor.attend_by, kind=kind))
            for orthogonal in (False, True):
                errors = []
                for key in keys:
                    w = random_features.directions(key, m, CHANNELS, orthogonal=orthogonal)
                    errors.append(float(jnp.mean((attend(w, q, k, v) - truth) ** 2) / square))
                row = {"kind": kind, "orthogonal": orthogonal, "features": m}
                rows.append(row | {"error": statistics.median(errors)})
    return rows


def table(rows: list[dict]) -> str:
    """Returns a Markdown table of attention errors, a column for each number of features."""
    features = sorted({row["features"] for row in rows})
    heads = " | ".join(f"m = {m}" for m in features)
    lines = [f"| logits of variance | features | {heads} |", "|---|---|" + "---|" * len(features)]
    for scale in SCALES:
        for kind in KINDS:
            for orthogonal in (False, True):
                own = (scale, kind, orthogonal)
                cells = [
                    f"{row['error']:.2g}"
                    for row in rows
                    if (row["scale"], row["kind"], row["orthogonal"]) == own
                ]
                name = f"{kind}, {'orthogonal' if orthogonal else 'independent'}"
                lines.append(f"| {scale**4:.2g} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)

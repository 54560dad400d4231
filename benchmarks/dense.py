"""The baseline: Perceiver and Perceiver IO in the dense form of the papers, on this project's
parameters.

Content and positions are concatenated, keys and values of all inputs are formed, all attention
weights are stored, and every latent layer is written out one after another. Formulas: Perceiver
(2103.03206), section 3 and appendix C; Perceiver IO (2107.14795), appendix E. Nothing here is
Haiku, and nothing is shared with `perceiver` but the byte array and the parameters.

The baseline is spared what is no part of the form: the table of positions is made once, outside,
and stacked layer weights are cut apart once, outside (`unstack`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from perceiver.positions import SeparableFourier
from perceiver.processor import is_stacked

from perceiver import specs

Params = dict[str, dict[str, jax.Array]]  # module path -> name -> array
Apply = Callable[[Params, dict[str, jax.Array]], jax.Array]  # (unstacked, inputs) -> logits

EPSILON = 1e-5
MASKED = -1e30


def layer_norm(params: Params, name: str, x: jax.Array) -> jax.Array:  # [..., C]
    """Normalises the last axis, then scales and shifts it."""
    mean = x.mean(axis=-1, keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(x.var(axis=-1, keepdims=True) + EPSILON)
    scale, offset = params[name]["scale"], params[name]["offset"]
    return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(offset, x.shape)


def linear(params: Params, name: str, x: jax.Array) -> jax.Array:  # [..., C] -> [..., C']
    """Returns x w + b."""
    y = x @ params[name]["w"]
    return y + jnp.broadcast_to(params[name]["b"], y.shape)


def mlp(params: Params, name: str, x: jax.Array) -> jax.Array:  # [..., C]
    """Linear, GELU in its tanh form, linear."""
    hidden = jax.nn.gelu(linear(params, f"{name}/hidden", x), approximate=True)
    return linear(params, f"{name}/out", hidden)


def attention(params: Params, name: str, x, inputs, *, heads, mask=None, query_mask=None):
    """Queries [B, N, D] attend to inputs [B, M, C], masks (True = real) -> [B, N, D]."""

    def project(source, part):
        y = linear(params, f"{name}/{part}", source)
        return y.reshape(*y.shape[:2], heads, -1)

    q, k, v = project(x, "query"), project(inputs, "key"), project(inputs, "value")
    logits = jnp.einsum("bnhc,bmhc->bhnm", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask[:, None, None], logits, MASKED)
    y = jnp.einsum("bhnm,bmhv->bnhv", jax.nn.softmax(logits, axis=-1), v)
    if query_mask is not None:
        y = jnp.where(query_mask[:, :, None, None], y, 0.0)
    return linear(params, f"{name}/out", y.reshape(*y.shape[:2], -1))


def cross_attend(
    params: Params, name: str, x, inputs, *, heads, query_residual=True, mask=None, query_mask=None
) -> jax.Array:
    """Queries [B, N, D] read inputs [B, M, C], masks [B, M] and [B, N]; feed forward: [B, N, D]."""
    at = f"{name}/attend"
    y = attention(
        params,
        f"{at}/attention",
        layer_norm(params, f"{at}/norm", x),
        layer_norm(params, f"{at}/norm_inputs", inputs),
        heads=heads,
        mask=mask,
        query_mask=query_mask,
    )
    return feed_forward(params, f"{name}/feed_forward", x + y if query_residual else y)


def self_attend(params: Params, name: str, x, *, heads) -> jax.Array:  # [B, N, D]
    """A layer of the latent Transformer."""
    y = layer_norm(params, f"{name}/attend/norm", x)
    x = x + attention(params, f"{name}/attend/attention", y, y, heads=heads)
    return feed_forward(params, f"{name}/feed_forward", x)


def feed_forward(params: Params, name: str, x) -> jax.Array:  # [B, N, D]
    """The second half of every block."""
    return x + mlp(params, f"{name}/mlp", layer_norm(params, f"{name}/norm", x))


def decode(params: Params, name: str, queries, latents, **how) -> jax.Array:
    """Queries [B, O, E] read latents [B, N, D]; a last linear layer where there is one."""
    x = cross_attend(params, f"{name}/cross_attend", queries, latents, **how)
    return linear(params, f"{name}/out", x) if f"{name}/out" in params else x


def unstack(params: Params) -> Params:
    """Cuts stacked layer weights apart: `.../layers/x` of [L, ...] becomes `.../layers_0/x`, ..."""
    apart: Params = {}
    for path, arrays in params.items():
        if not is_stacked(path):
            apart[path] = arrays
            continue
        for layer in range(next(iter(arrays.values())).shape[0]):
            of_layer = {name: array[layer] for name, array in arrays.items()}
            apart[path.replace("/layers/", f"/layers_{layer}/")] = of_layer
    return apart


def build(spec) -> Apply:
    """Returns the whole model of a spec, as a function of unstacked parameters and inputs.

    Raises:
      ValueError: a kind, stem or positions that the baseline does not have.
    """
    spec = specs.parse(spec)
    if isinstance(spec, specs.MaskedLM):
        return lambda params, inputs: _masked_lm(params, spec, **inputs)
    if (spec.stem, spec.positions) != ("pixels", "fourier"):
        raise ValueError(
            f"the dense baseline has pixels with Fourier positions, not stem={spec.stem!r} with "
            f"positions={spec.positions!r}"
        )
    return lambda params, inputs: _image_classifier(params, spec, **inputs)


def prepare(spec, inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds what `build`'s function takes beside a model's inputs: a classifier's positions."""
    spec = specs.parse(spec)
    if isinstance(spec, specs.MaskedLM):
        return {name: inputs[name] for name in ("tokens", "input_mask")}
    dims, resolution = spec.image_shape[:2], spec.max_resolution or None
    table = SeparableFourier.of_grid(dims, bands=spec.bands, max_resolution=resolution).dense()
    return {"image": inputs["image"], "positions": table}


def _encode(params, spec, x, mask=None) -> jax.Array:  # [B, M, C] -> [B, N, D]
    table = params["latents"]["table"]
    latents = jnp.broadcast_to(table[None], (x.shape[0], *table.shape))
    for encoder, processor in spec.sharing.stages:
        name = "encoder" + (f"_{encoder}" if encoder else "")
        latents = cross_attend(
            params, f"{name}/cross_attend", latents, x, heads=spec.cross_heads, mask=mask
        )
        name = "processor" + (f"_{processor}" if processor else "")
        for _ in range(spec.blocks):
            for layer in range(spec.layers):
                latents = self_attend(
                    params, f"{name}/layers_{layer}/self_attend", latents, heads=spec.self_heads
                )
    return latents


def _image_classifier(params, spec, image, positions) -> jax.Array:  # -> [B, K]
    batch, (size, channels) = image.shape[0], positions.shape
    pixels = image.reshape(batch, size, -1)
    table = jnp.broadcast_to(positions[None], (batch, size, channels))
    latents = _encode(params, spec, jnp.concatenate([pixels, table], axis=-1))
    if spec.head == "mean":
        return linear(params, "outputs/logits", latents.mean(axis=1))
    table = params["outputs/queries"]["table"]
    queries = jnp.broadcast_to(table[None], (batch, *table.shape))
    how = {"heads": spec.query_heads, "query_residual": spec.query_residual}
    return decode(params, "outputs/decoder", queries, latents, **how)[:, 0]


def _masked_lm(params, spec, tokens, input_mask) -> jax.Array:  # -> [B, M, K]
    (batch, length), table = tokens.shape, params["embedding"]["table"]

    def rows(name):
        first = params[name]["table"][:length]
        return jnp.broadcast_to(first[None], (batch, *first.shape))

    x = jnp.take(table, tokens, axis=0) + rows("inputs/positions")
    latents = _encode(params, spec, x, input_mask)
    how = {"heads": spec.query_heads, "query_residual": spec.query_residual}
    queries = rows("outputs/queries")
    y = decode(params, "outputs/decoder", queries, latents, query_mask=input_mask, **how)
    logits = jnp.einsum("bme,ke->bmk", y, table)
    return logits + jnp.broadcast_to(params["outputs"]["b"], logits.shape)

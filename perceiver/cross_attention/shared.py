"""Cross-attention to elements whose positions the batch shares: nothing is concatenated for all M.

Queries have absorbed the projection to keys (`absorb`), so an element serves as its own key and
value. With its content c, its row t of the table of positions and its inverse standard deviation,

    logit = inv (g_content . c + g_table . t + bias) = [g_content, g_table, bias] . inv [c, t, 1]

and a query's sums are softmax-weighted sums of the same inv [c, t, 1]. That row is formed for the
elements of one chunk at a time (`online`); the table is stored once, not for every example.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.cross_attention import online


class Sums(NamedTuple):
    """What the weights p of a query's softmax gather from the elements; float32."""

    content: jax.Array  # [B, Q, F]: sum of p inv content
    table: jax.Array | None  # [B, Q, P]: sum of p inv table
    total: jax.Array  # [B, Q]: sum of p inv
    lse: jax.Array  # [B, Q]: log-sum-exp of the logits


def attend(
    content: jax.Array,
    table: jax.Array | None,
    g_content: jax.Array,
    g_table: jax.Array | None,
    bias: jax.Array,
    inverse_std: jax.Array,
    mask: jax.Array | None = None,
    *,
    chunk: int = 0,
    operands: str = "float32",
) -> Sums:
    """Attends to M elements; all float inputs have gradients, the table among them.

    Args:
      content: [B, M, F], of any floating dtype; positions that differ between examples belong here.
      table: [M, P] of positions, or None.
      g_content: [B, Q, F], queries with all that is linear absorbed and 1 / sqrt(c) applied.
      g_table: [B, Q, P], or None where there is no table.
      bias: [B, Q], the queries' share of features that all elements have in common.
      inverse_std: [B, M], the layer norm's.
      mask: [B, M] bool or None; elements with False get no weight and no gradient.
      chunk: elements at a time; 0 chooses by platform and size.
      operands: dtype of the operands of matrix products.

    Returns:
      The sums. A query that sees no element has zeros, and `merge.NOTHING` for its log-sum-exp.

    Raises:
      ValueError: a table of another length than the content, or without its part of the queries.
    """
    batch, size, width = content.shape
    if (table is None) != (g_table is None):
        raise ValueError("table and g_table belong together: give both or neither")
    if table is not None and table.shape[0] != size:
        raise ValueError(f"table {table.shape} and content {content.shape} differ in length")
    parts = [g_content, bias[..., None]] if table is None else [g_content, g_table, bias[..., None]]
    g = jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=-1)  # [B, Q, C + 1]
    chunks = online.Chunks(
        form=_form,
        size=size,
        channels=g.shape[-1],
        length=chunk or online.chunk_size(size, batch * g.shape[1]),
        operands=operands,
    )
    rows = online.Rows(own=(content, inverse_std), common=table)
    y, lse = online.attend(chunks, g.mT[:, None], rows, (), mask)  # [B, 1, C + 1, Q], [B, 1, Q]
    y = y[:, 0].mT  # [B, Q, C + 1]
    positions = None if table is None else y[..., width:-1]
    return Sums(y[..., :width], positions, y[..., -1], lse[:, 0])


def _form(rows: online.Rows, whole, start):
    """Forms inv [content, table, 1], as keys and as values [B, 1, W, C + 1]."""
    del whole, start
    (content, inverse_std), table = rows
    inverse_std = inverse_std[..., None]  # [B, W, 1]
    parts = [content.astype(jnp.float32) * inverse_std, inverse_std]
    if table is not None:
        parts.insert(1, table.astype(jnp.float32)[None] * inverse_std)
    x = jnp.concatenate(parts, axis=-1)[:, None]
    return x, x

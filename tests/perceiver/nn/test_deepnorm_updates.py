"""What one step of gradient descent does to the output of a stack, against the stack's depth."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.model.processor import Processor
from perceiver.nn.residual import residual_connection

RATE = 0.01
D = 8


def changes(residual, layers):
    """Root mean square change of the output by (weights of branches, what norms learn)."""
    sizes = {
        "layers": layers,
        "heads": 1,
        "remat": "layer",
        "residual": residual_connection(residual, layers),
    }
    stack = hk.transform(lambda x: Processor(**sizes, name="processor")(x))
    draw = np.random.default_rng(3)
    x, direction = draw.standard_normal((2, 2, 5, D)).astype(np.float32)

    def only(names, tree, left_out=()):
        return {
            path: {
                name: g if name in names and not path.endswith(left_out) else jnp.zeros_like(g)
                for name, g in leaves.items()
            }
            for path, leaves in tree.items()
        }

    @jax.jit
    def run(key):
        params = stack.init(key, x)
        y, pull = jax.vjp(lambda params: stack.apply(params, None, x), params)
        (gradient,) = pull(direction / direction.size)
        kinds = (
            only(("w",), gradient, left_out=("/query", "/key")),
            only(("scale", "offset"), gradient),
        )
        steps = jax.tree.map(lambda *leaves: RATE * jnp.stack(leaves), *kinds)

        def change(step):
            moved = jax.tree.map(jnp.subtract, params, step)
            return jnp.sqrt(jnp.mean((stack.apply(moved, None, x) - y) ** 2))

        return jax.lax.map(change, steps)

    return np.asarray(run(jax.random.key(0)))


@pytest.mark.slow
def test_deepnorm_bounds_updates_of_weights_whatever_the_depth():
    (shallow, shallow_norms), (deep, deep_norms) = changes("deepnorm", 8), changes("deepnorm", 64)
    np.testing.assert_allclose(deep, shallow, rtol=0.3)
    # the theory leaves out what norms learn, which acts on the stream itself, of weight 1: all of
    # them together move it in proportion to their number
    assert 6 < deep_norms / shallow_norms < 9
    assert changes("post_norm", 8)[0] > 30 * shallow

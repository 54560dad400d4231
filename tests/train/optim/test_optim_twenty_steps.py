"""Twenty steps of the whole update against numpy and closed forms."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import perceiver
from train import step as step_lib
from train.objective import losses
from train.optim import optimizers

STEPS, LAYERS = 20, 3
# Float32: the same operations on the same gradients, with rounding carried on for twenty steps.
RTOL, ATOL = 2e-5, 1e-7
SPEC = {
    "kind": "image_classifier",
    "image_shape": (5, 7, 3),
    "classes": 11,
    "latents": 13,
    "latent_channels": 16,
    "layers": LAYERS,
    "blocks": 2,
    "self_heads": 2,
    "bands": 3,
    "head": "query",
    "query_channels": 8,
}


def config(**changes) -> types.SimpleNamespace:
    fields = {
        "name": "lamb",
        "lr": 0.01,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-6,
        "weight_decay": 0.1,
        "clip_norm": 20.0,  # amid the norms of the gradients below
        "schedule": "constant_cosine",
        "constant_fraction": 0.5,
        "steps": STEPS,
    }
    return types.SimpleNamespace(**fields | changes)


def rates(c) -> np.ndarray:
    """Flat for the first half, then half a cosine: appendix A.1 of Perceiver IO, in small."""
    step = np.arange(STEPS)
    falling = (1 + np.cos(np.pi * (step - STEPS // 2) / (STEPS - STEPS // 2))) / 2
    return c.lr * np.where(step < STEPS // 2, 1.0, falling)


def apart(tree: dict) -> dict:
    """The same arrays with each layer of a stack as a module of its own."""
    found = {}
    for module, arrays in tree.items():
        if "layers" not in module.split("/"):
            found[module] = arrays
            continue
        for layer in range(LAYERS):
            name = module.replace("layers", f"layer_{layer}")
            found[name] = {key: x[layer] for key, x in arrays.items()}
    return found


@functools.cache
def perceiver_steps():
    """Parameters and gradients of a real model that trains for twenty steps: stacked trees."""
    model, c = perceiver.build(SPEC), config()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(17, 5, 7, 3)).astype("f4")
    labels = rng.integers(11, size=17)
    params, state = jax.jit(model.init)(jax.random.key(0))
    optimiser = optimizers.make(c)

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, _ = model.apply(params, state, None, {"image": images}, is_training=True)
            return 5 * losses.softmax_cross_entropy(logits, labels).mean()

        return jax.grad(loss)(params)

    @jax.jit
    def update(params, opt_state, grads):
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    trajectory, gradients, opt_state = [params], [], optimiser.init(params)
    for _ in range(STEPS):
        gradients.append(gradient(params))
        params, opt_state = update(params, opt_state, gradients[-1])
        trajectory.append(params)
    return jax.device_get((trajectory, gradients))


def test_a_perceivers_lamb_steps_are_those_of_numpy_in_float64():
    """Clip, Adam, decay, ratio and rate, as the papers write them; no optax at all."""
    c = config()
    trajectory, gradients = perceiver_steps()
    params = {
        (module, name): x.astype("f8")
        for module, arrays in apart(trajectory[0]).items()
        for name, x in arrays.items()
    }
    mean = {key: np.zeros_like(x) for key, x in params.items()}
    square = {key: np.zeros_like(x) for key, x in params.items()}
    assert len(apart(trajectory[0])) > len(trajectory[0])
    norms = []
    for step, stacked in enumerate(gradients, start=1):
        grads = apart(stacked)
        norm = np.sqrt(sum((x.astype("f8") ** 2).sum() for a in grads.values() for x in a.values()))
        norms.append(norm)
        for (module, name), x in params.items():
            key = module, name
            g = grads[module][name].astype("f8") * min(1.0, c.clip_norm / norm)
            mean[key] = c.b1 * mean[key] + (1 - c.b1) * g
            square[key] = c.b2 * square[key] + (1 - c.b2) * g**2
            corrected = square[key] / (1 - c.b2**step)
            u = mean[key] / (1 - c.b1**step) / (np.sqrt(corrected) + c.eps)
            if name not in ("b", "scale", "offset"):
                u = u + c.weight_decay * x
            sizes = np.linalg.norm(x), np.linalg.norm(u)
            ratio = sizes[0] / sizes[1] if min(sizes) > 0 else 1.0
            params[key] = x - rates(c)[step - 1] * ratio * u
    assert min(norms) < c.clip_norm < max(norms)  # some are clipped, some are not
    for module, arrays in apart(trajectory[-1]).items():
        for name, x in arrays.items():
            scale = np.abs(params[module, name]).max()
            # relative to the array: where a gradient is rounding noise, single elements are too
            np.testing.assert_allclose(
                x, params[module, name], rtol=0, atol=1e-4 * scale, err_msg=f"{module}/{name}"
            )


def train(optimiser, params, gradient):
    @jax.jit
    def update(params, opt_state):
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = optimiser.init(params)
    for _ in range(STEPS):
        params, opt_state = update(params, opt_state)
    return params


def test_lamb_along_the_parameters_shrinks_them_by_the_rates():
    # A constant gradient gives Adam's update g / (|g| + eps): here along the parameters, as is the
    # decay. The ratio makes any such update as long as they are, so each step takes a share of lr.
    c = config(clip_norm=0.0)
    start = jnp.full((5, 7), 3.0)
    found = train(optimizers.make(c), {"a": {"w": start}}, {"a": {"w": jnp.full((5, 7), 0.2)}})
    expected = 3.0 * np.prod(1 - rates(c))
    np.testing.assert_allclose(found["a"]["w"], np.full((5, 7), expected), rtol=RTOL)


def test_without_a_gradient_adamw_decays_by_the_product_of_the_rates():
    c = config(name="adamw", lr=0.3)
    params = {"a": {name: jnp.full((3,), 2.0) for name in ("w", "table", "b", "scale", "offset")}}
    found = train(optimizers.make(c), params, jax.tree.map(jnp.zeros_like, params))["a"]
    expected = 2.0 * np.prod(1 - rates(c) * c.weight_decay)
    for name in ("w", "table"):
        np.testing.assert_allclose(found[name], np.full(3, expected), rtol=RTOL)
    for name in ("b", "scale", "offset"):
        np.testing.assert_array_equal(found[name], params["a"][name])


def test_adamw_with_a_constant_gradient_walks_by_the_rates():
    c = config(name="adamw", weight_decay=0.0, clip_norm=1e-3)
    gradient = np.float32([[3.0, -4.0], [0.0, 12.0]])
    found = train(optimizers.make(c), {"a": {"w": jnp.ones((2, 2))}}, {"a": {"w": gradient}})
    clipped = gradient * 1e-3 / 13  # the norm is 13
    expected = 1 - rates(c).sum() * clipped / (np.abs(clipped) + c.eps)
    np.testing.assert_allclose(found["a"]["w"], expected, rtol=RTOL)


class Linear:
    """A loss whose gradient is the mean of the inputs, whatever the parameters."""

    def init(self, rng, batch):
        return {"a": {"w": jnp.arange(3.0)}}, {}

    def loss(self, params, net_state, rng, batch, *, is_training):
        del rng, is_training
        total = (batch["x"] @ params["a"]["w"]).sum()
        return {"loss": (total, jnp.float32(len(batch["x"])))}, net_state


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_lags_by_its_closed_form(decay, rng):
    # p_t = p_0 - a t, so that the lag L_t = d (L_{t-1} + a) sums up to a d (1 - d^t) / (1 - d).
    batch = {"x": rng.normal(size=(7, 3)).astype("f4")}
    task, optimiser = Linear(), optax.sgd(0.25)
    state = step_lib.init_state(task, optimiser, 0, batch, decay)
    step = jax.jit(step_lib.make_train_step(task, optimiser, seed=0, ema_decay=decay))
    pace = 0.25 * batch["x"].astype("f8").mean(axis=0)
    for count in range(1, STEPS + 1):
        state, _ = step(state, batch)
        now = np.arange(3) - pace * count
        np.testing.assert_allclose(state.params["a"]["w"], now, rtol=RTOL, atol=1e-6)
        lag = pace * decay * (1 - decay**count) / (1 - decay)
        np.testing.assert_allclose(state.ema["a"]["w"], now + lag, rtol=RTOL, atol=1e-6)

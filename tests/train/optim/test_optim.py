import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.optim import optimizers

RTOL = 2e-6  # float32, and the norms' sums in another order
LAYERS = 3


def config(**changes) -> types.SimpleNamespace:
    fields = {
        "name": "lamb",
        "lr": 0.02,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-6,
        "weight_decay": 0.1,
        "clip_norm": 10.0,
        "schedule": "constant_cosine",
        "constant_fraction": 0.5,
        "steps": 7,
    }
    return types.SimpleNamespace(**fields | changes)


def reference(c: types.SimpleNamespace, mask: dict) -> optax.GradientTransformation:
    """LAMB or AdamW of optax itself, after the same clipping."""
    schedule = optax.join_schedules(
        [optax.constant_schedule(c.lr), optax.cosine_decay_schedule(c.lr, 3)], [4]
    )
    make = {"lamb": optax.lamb, "adamw": optax.adamw}[c.name]
    optimiser = make(schedule, c.b1, c.b2, c.eps, weight_decay=c.weight_decay, mask=mask)
    return optax.chain(optax.clip_by_global_norm(c.clip_norm), optimiser)


def tree(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Parameters of a stack of layers and of modules outside it; layers of very unequal norms."""
    grow = np.array([0.01, 1.0, 30.0], np.float32)

    def draw(*shape):
        return (scale * rng.normal(size=shape)).astype(np.float32)

    return {
        "processor/layers/attend/query": {
            "w": draw(LAYERS, 5, 7) * grow[:, None, None],
            "b": draw(LAYERS, 7),
        },
        "processor/layers/norm": {"scale": draw(LAYERS, 5), "offset": np.zeros((LAYERS, 5), "f4")},
        "encoder/query": {"w": draw(3, 11), "b": np.zeros(11, "f4")},
        "latents": {"table": draw(13, 5)},
    }


def split(stacked: dict) -> dict:
    """The same arrays with each layer of a stack as a module of its own."""
    apart = {}
    for module, arrays in stacked.items():
        if "layers" in module.split("/"):
            for layer in range(LAYERS):
                name = module.replace("/layers/", f"/layer_{layer}/")
                apart[name] = {key: x[layer] for key, x in arrays.items()}
        else:
            apart[module] = arrays
    return apart


def mask_of(params: dict) -> dict:
    """The mask written out by hand: matrices and tables only."""
    return {m: {name: name in ("w", "table") for name in arrays} for m, arrays in params.items()}


def train(optimiser, params, gradients):
    """Applies the optimiser to each gradient in turn."""

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return params


def assert_close(actual, expected):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=RTOL, atol=1e-7), actual, expected
    )


@pytest.fixture
def params(rng):
    return tree(rng)


@pytest.fixture
def gradients(rng):
    # The first ones are large enough to be clipped.
    return [tree(rng, scale) for scale in (10.0, 3.0, 0.1, 0.03, 0.01)]


def test_lamb_of_stacked_layers_is_optax_lamb_of_the_layers_apart(params, gradients):
    c = config()
    apart = split(params)
    expected = train(reference(c, mask_of(apart)), apart, [split(g) for g in gradients])
    actual = train(optimizers.make(c), params, gradients)
    assert_close(split(actual), expected)


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_an_unstacked_tree_trains_as_with_optax(params, gradients, name):
    c = config(name=name)
    params, gradients = split(params), [split(g) for g in gradients]
    expected = train(reference(c, mask_of(params)), params, gradients)
    assert_close(train(optimizers.make(c), params, gradients), expected)


def test_adamw_of_stacked_layers_is_adamw_of_the_layers_apart(params, gradients):
    optimiser = optimizers.make(config(name="adamw"))
    apart = train(optimiser, split(params), [split(g) for g in gradients])
    assert_close(split(train(optimiser, params, gradients)), apart)


def test_zero_clip_norm_never_clips():
    # Adam undoes the scale of a first gradient; clipped, it would not outweigh the second.
    params = {"latents": {"table": jnp.ones((5, 3))}}
    gradients = [{"latents": {"table": jnp.full((5, 3), g)}} for g in (1e6, -1.0)]
    free, unclipped, clipped = (
        train(optimizers.make(config(name="adamw", clip_norm=norm)), params, gradients)
        for norm in (0.0, 1e30, 1.0)
    )
    assert_close(free, unclipped)
    assert not np.allclose(free["latents"]["table"], clipped["latents"]["table"], rtol=1e-3)


def test_the_trust_ratio_of_a_layer_is_one_where_a_norm_is_zero():
    path = "processor/layers/linear"
    params = {path: {"w": jnp.array([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]])}}
    updates = {path: {"w": jnp.array([[0.0, 2.0], [0.0, 2.0], [0.0, 0.0]])}}
    optimiser = optimizers.scale_by_layer_trust_ratio()
    with jax.debug_nans(True):
        scaled, _ = optimiser.update(updates, optimiser.init(params), params)
    np.testing.assert_allclose(scaled[path]["w"], [[0.0, 5.0], [0.0, 2.0], [0.0, 0.0]])


def test_the_trust_ratio_of_one_number_a_layer():
    params = {"layers/gate": {"w": jnp.array([2.0, -3.0])}}
    updates = {"layers/gate": {"w": jnp.array([-0.5, 4.0])}}
    scaled, _ = optimizers.scale_by_layer_trust_ratio().update(updates, optax.EmptyState(), params)
    np.testing.assert_allclose(scaled["layers/gate"]["w"], [-2.0, 3.0])


def test_the_trust_ratio_needs_parameters():
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizers.scale_by_layer_trust_ratio().update({}, optax.EmptyState())


@pytest.mark.parametrize(
    ("path", "stacked"),
    [
        ("layers", True),
        ("processor/layers/attend/query", True),
        ("encoder/query", False),
        ("players/query", False),
        ("layers_2/query", False),
    ],
)
def test_a_stack_is_known_by_a_whole_component_of_its_path(path, stacked):
    # However the tree nests: by module path, or a dict for each component.
    flat, nested = {path: {"w": 0}}, {"w": 0}
    for word in reversed(path.split("/")):
        nested = {word: nested}
    for tree in (flat, nested):
        params = jax.tree.map(lambda _: jnp.array([[3.0], [4.0]]), tree)
        updates = jax.tree.map(lambda _: jnp.array([[8.0], [6.0]]), tree)
        scaled, _ = optimizers.scale_by_layer_trust_ratio().update(
            updates, optax.EmptyState(), params
        )
        expected = [[3.0], [4.0]] if stacked else [[4.0], [3.0]]
        np.testing.assert_allclose(jax.tree.leaves(scaled)[0], expected)


def test_the_decay_mask_goes_by_name():
    names = {"w": True, "table": True, "b": False, "scale": False, "offset": False}
    tree = {"encoder/norm": dict.fromkeys(names, 0.0), "b": {"w": 0.0}}
    assert optimizers.decay_mask(tree) == {"encoder/norm": names, "b": {"w": True}}


@pytest.mark.parametrize("name", optimizers.OPTIMISERS)
def test_only_what_the_mask_marks_decays(params, name):
    zeros = jax.tree.map(jnp.zeros_like, params)
    new = train(optimizers.make(config(name=name)), params, [zeros])
    shrunk = jax.tree.map(lambda a, b: bool(np.linalg.norm(a) < np.linalg.norm(b)), new, params)
    assert shrunk == mask_of(params)


@pytest.mark.parametrize("name", optimizers.OPTIMISERS)
def test_the_state_is_arrays_whatever_the_numbers(params, name):
    states = [
        optimizers.make(config(name=name, **changes)).init(params)
        for changes in ({}, {"clip_norm": 0.0, "weight_decay": 0.0, "schedule": "constant"})
    ]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(states))
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


def test_pmap_and_sharding_change_nothing(rng):
    # Leading and trailing axes divide by eight, so that every array can be split either way.
    shapes = {"a/layers/linear": {"w": (8, 16, 3)}, "b": {"w": (24, 8)}}
    draw = functools.partial(
        jax.tree.map, lambda s: rng.normal(size=s).astype("f4"), is_leaf=lambda s: type(s) is tuple
    )
    params, gradient = draw(shapes), draw(shapes)
    optimiser = optimizers.make(config())
    expected = train(optimiser, params, [gradient] * 2)

    sharding = NamedSharding(Mesh(jax.devices(), "data"), PartitionSpec("data"))
    spread = functools.partial(jax.device_put, device=sharding)
    actual = train(optimiser, spread(params), [spread(gradient)] * 2)
    assert not actual["b"]["w"].sharding.is_fully_replicated
    assert_close(actual, expected)

    def two_steps(params, gradient):
        state = optimiser.init(params)
        for _ in range(2):
            updates, state = optimiser.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    copies = jax.tree.map(lambda x: np.stack([x] * 8), (params, gradient))
    replicated = jax.pmap(two_steps)(*copies)
    assert_close(jax.tree.map(lambda x: x[5], replicated), expected)


def test_lamb_needs_no_more_memory_than_optax():
    c = config()
    params = {
        "processor/layers/linear": {"w": jax.ShapeDtypeStruct((6, 257, 263), "f4")},
        "encoder": {"w": jax.ShapeDtypeStruct((509, 521), "f4")},
    }

    def temporary_bytes(optimiser):
        def step(params, state, gradient):
            updates, state = optimiser.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        state = jax.eval_shape(optimiser.init, params)
        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    ours = temporary_bytes(optimizers.make(c))
    # Slack for a norm of each layer, which optax does not take.
    assert ours <= temporary_bytes(reference(c, mask_of(params))) + 4096


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "adam"}, "optim.name='adam' is unknown; choose one of lamb, adamw"),
        ({"b1": 1.0}, "optim.b1=1.0"),
        ({"b2": -0.1}, "optim.b2=-0.1"),
        ({"eps": 0.0}, "optim.eps=0.0"),
        ({"weight_decay": -1.0}, "optim.weight_decay=-1.0"),
        ({"clip_norm": float("inf")}, "optim.clip_norm=inf"),
        ({"schedule": "linear"}, "optim.schedule='linear'"),
    ],
)
def test_a_bad_value_is_named_with_its_remedy(changes, message):
    with pytest.raises(ValueError, match=message):
        optimizers.make(config(**changes))

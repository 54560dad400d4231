"""Each way in which weights can fail to fit a model is an error that names the culprit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver.weights.mapping import (
    TRANSPOSE,
    Rule,
    expand,
    flatten,
    translate,
    translate_back,
    unflatten,
)
from perceiver.weights.stored import StoredArray


def target(dtype=np.float32, **shapes):
    """target(stack__w=(2, 3)) is the tree {"stack": {"w": [2, 3]}}."""
    return unflatten(
        {
            key.replace("__", "/"): jax.ShapeDtypeStruct(shape, dtype)
            for key, shape in shapes.items()
        }
    )


def array(*shape, start=0):
    return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


def stored(arrays):
    return {key: StoredArray.of(x) for key, x in arrays.items()}


STACK = Rule("layer{_layer}/w", "stack/w")
TURNED = Rule("layers.{layer}.weight", "stack/w", TRANSPOSE)
PLAIN = Rule("a", "m/w")


def test_names_are_changed_and_arrays_transformed():
    rules = [Rule("dense.weight", "linear/w", TRANSPOSE), Rule("dense.bias", "linear/b")]
    source = {"dense.weight": array(2, 3), "dense.bias": array(2)}
    params = translate(stored(source), target(linear__w=(3, 2), linear__b=(2,)), rules)
    assert flatten(params).keys() == {"linear/w", "linear/b"}
    np.testing.assert_array_equal(params["linear"]["w"], source["dense.weight"].T)
    np.testing.assert_array_equal(params["linear"]["b"], source["dense.bias"])
    assert params["linear"]["w"].flags.c_contiguous


@given(st.permutations(range(11)))
def test_layers_are_stacked_by_number_whatever_their_order(order):
    # more than ten layers: sorted as text, 10 would come before 2
    source = {"layer/w" if i == 0 else f"layer_{i}/w": array(3, start=10 * i) for i in order}
    params = translate(stored(source), target(stack__w=(11, 3)), [STACK])
    np.testing.assert_array_equal(params["stack"]["w"][:, 0], 10 * np.arange(11))


def test_layers_are_transformed_one_by_one_and_back():
    source = {f"layers.{i}.weight": array(2, 3, start=i) for i in range(5)}
    params = translate(stored(source), target(stack__w=(5, 3, 2)), [TURNED])
    np.testing.assert_array_equal(params["stack"]["w"][1], source["layers.1.weight"].T)
    back = translate_back(params, [TURNED])
    assert back.keys() == source.keys()
    for key, x in back.items():
        np.testing.assert_array_equal(x, source[key])
        assert np.shares_memory(x, params["stack"]["w"])  # nothing is copied on the way back


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_other_precisions_become_the_models_own(dtype):
    x = np.asarray([0.5, -1.25, 3.0], dtype)
    params = translate({"a": StoredArray.of(x)}, target(m__w=(3,)), [PLAIN])
    assert params["m"]["w"].dtype == np.float32
    np.testing.assert_array_equal(params["m"]["w"], [0.5, -1.25, 3.0])


def test_wide_integers_become_the_models_own():
    counter = translate(
        {"a": StoredArray.of(np.array(7, np.int64))}, target(np.int32, m__w=()), [PLAIN]
    )
    assert counter["m"]["w"].dtype == np.int32
    assert counter["m"]["w"].shape == ()
    assert counter["m"]["w"] == 7


def test_an_array_is_read_once_and_only_when_everything_fits():
    reads = []

    def lazy(name, *shape):
        return StoredArray(shape, np.dtype(np.float32), lambda: reads.append(name) or array(*shape))

    source = {"a": lazy("a", 3), "drop": lazy("drop", 2)}
    rules = [PLAIN, Rule("drop", None)]
    translate(source, target(m__w=(3,)), rules)
    assert reads == ["a"]
    with pytest.raises(ValueError, match="stray"):
        translate({**source, "stray": lazy("stray", 1)}, target(m__w=(3,)), rules)
    assert reads == ["a"]


def test_what_means_nothing_may_be_there_or_not():
    rules = [PLAIN, Rule("count", None)]
    for extra in ({}, {"count": np.array(3)}):
        params = translate(stored({"a": array(3), **extra}), target(m__w=(3,)), rules)
        assert flatten(params).keys() == {"m/w"}
    assert translate_back(params, rules).keys() == {"a"}


FULL = {"layer/w": array(3), "layer_1/w": array(3)}
ERRORS = {
    "source stray: no rule matches it": (
        {**FULL, "stray": array(1)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    "source ab: no rule matches it": ({"a": array(3), "ab": array(3)}, {"m__w": (3,)}, [PLAIN]),
    "source layer_01/w: no rule matches it": (
        {**FULL, "layer_01/w": array(3)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    "source layer_0/w: no rule matches it": (
        {**FULL, "layer_0/w": array(3)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    r"source layer{_layer}/w: layers \[2, 10\], the model has 2": (
        {**FULL, "layer_10/w": array(3), "layer_2/w": array(3)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    r"target stack/w: nothing fills it in layers \[2, 3, 4\]; missing layer_2/w": (
        FULL,
        {"stack__w": (5, 3)},
        [STACK],
    ),
    r"target stack/w: nothing fills it in layers \[1\]": (
        {"layer/w": array(3), "layer_2/w": array(3)},
        {"stack__w": (3, 3)},
        [STACK],
    ),
    r"target stack/w: nothing fills it in layers \[0\]; missing layer/w": (
        {"layer_1/w": array(3), "layer_2/w": array(3)},
        {"stack__w": (3, 3)},
        [STACK],
    ),
    "target m/b: nothing fills it; missing b": (
        {"a": array(3)},
        {"m__w": (3,), "m__b": (3,)},
        [PLAIN, Rule("b", "m/b")],
    ),
    r"source a: shape \(3, 2\), the model needs \(2, 3\) for m/w": (
        {"a": array(3, 2)},
        {"m__w": (2, 3)},
        [PLAIN],
    ),
    r"source a: shape \(7, 2\), the model needs \(7, 3\) for m/w": (
        {"a": array(7, 2)},
        {"m__w": (3, 7)},
        [Rule("a", "m/w", TRANSPOSE)],
    ),
    r"source layer_1/w: shape \(2,\), the model needs \(3,\) for stack/w": (
        {"layer/w": array(3), "layer_1/w": array(2)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    "source a: dtype int32, m/w is float32": (
        {"a": np.zeros(3, np.int32)},
        {"m__w": (3,)},
        [PLAIN],
    ),
    "source a: dtype bool, m/w is float32": ({"a": np.zeros(3, bool)}, {"m__w": (3,)}, [PLAIN]),
}


@pytest.mark.parametrize("message", ERRORS)
def test_what_does_not_fit_is_refused(message):
    source, shapes, rules = ERRORS[message]
    with pytest.raises(ValueError, match=f"weights do not fit the model:\n(.*\n)* *{message}"):
        translate(stored(source), target(**shapes), rules)


TABLE_ERRORS = {
    "b: another rule already fills m/w": ({"m__w": (3,)}, [PLAIN, Rule("b", "m/w")]),
    "b: another rule already fills stack/w": ({"stack__w": (2, 3)}, [STACK, Rule("b", "stack/w")]),
    "a: two rules read it": ({"m__w": (3,), "m__b": (3,)}, [PLAIN, Rule("a", "m/b")]),
    "layer_1/w: two rules read it": (
        {"stack__w": (2, 3), "m__w": (3,)},
        [STACK, Rule("layer_1/w", "m/w")],
    ),
    "m/b: no rule fills it": ({"m__w": (3,), "m__b": (3,)}, [PLAIN]),
    "a: the model has no parameter m/w": ({}, [PLAIN]),
}


@pytest.mark.parametrize("message", TABLE_ERRORS)
def test_a_table_must_be_total_and_injective(message):
    shapes, rules = TABLE_ERRORS[message]
    with pytest.raises(ValueError, match=f"table does not fit the model:\n(.*\n)* *{message}"):
        expand(rules, target(**shapes))


def test_all_culprits_are_listed_at_once():
    source = {"stray": array(1), "a": array(5)}
    rules = [PLAIN, Rule("b", "m/b")]
    with pytest.raises(ValueError, match="stray") as error:
        translate(stored(source), target(m__w=(3,), m__b=(3,)), rules)
    for culprit in ("source stray", "target m/b", "source a: shape"):
        assert culprit in str(error.value)


@given(st.sets(st.sampled_from("abcdefg"), min_size=1), st.data())
def test_taking_anything_away_or_adding_anything_fails(names, data):
    """Total and injective: no source is left out, no target stays empty."""
    rules = [Rule(name, f"m/{name}") for name in names]
    source = {name: array(2) for name in names}
    shapes = target(**{f"m__{name}": (2,) for name in names})
    assert flatten(translate(stored(source), shapes, rules)).keys() == {f"m/{n}" for n in names}
    name = data.draw(st.sampled_from(sorted(names)))
    fewer = {key: x for key, x in source.items() if key != name}
    with pytest.raises(ValueError, match=f"target m/{name}: nothing fills it"):
        translate(stored(fewer), shapes, rules)
    with pytest.raises(ValueError, match="source z: no rule matches it"):
        translate(stored({**source, "z": array(2)}), shapes, rules)


def test_unflatten_inverts_flatten():
    params = {"a/b": {"w": array(2), "b": array(3)}, "a": {"w": array(1)}}
    flat = flatten(params)
    assert flat.keys() == {"a/b/w", "a/b/b", "a/w"}
    assert unflatten(flat) == params

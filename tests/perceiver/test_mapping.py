"""Each way in which weights can fail to fit a model is an error that names the culprit."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver.weights.mapping import Rule, flatten, translate, unflatten


def target(**shapes):
    """target(stack__w=(2, 3)) is the tree {"stack": {"w": [2, 3]}}."""
    return unflatten(
        {
            key.replace("__", "/"): jax.ShapeDtypeStruct(shape, np.float32)
            for key, shape in shapes.items()
        }
    )


def array(*shape, start=0):
    return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


STACK = Rule(r"layer(?:_(?P<layer>\d+))?/(?P<leaf>w|b)", r"stack/\g<leaf>")


def test_keys_are_renamed_and_arrays_transformed():
    rules = [
        Rule(r"dense\.(\w)eight", r"linear/\1", np.transpose),
        Rule(r"dense\.bias", "linear/b"),
    ]
    source = {"dense.weight": array(2, 3), "dense.bias": array(2)}
    params = translate(source, target(linear__w=(3, 2), linear__b=(2,)), rules)
    assert flatten(params).keys() == {"linear/w", "linear/b"}
    np.testing.assert_array_equal(params["linear"]["w"], source["dense.weight"].T)
    np.testing.assert_array_equal(params["linear"]["b"], source["dense.bias"])


@given(st.permutations(range(11)))
def test_layers_are_stacked_by_number_whatever_their_order(order):
    # more than ten layers: sorted as text, 10 would come before 2
    source = {"layer/w" if i == 0 else f"layer_{i}/w": array(3, start=10 * i) for i in order}
    params = translate(source, target(stack__w=(11, 3)), [STACK])
    np.testing.assert_array_equal(params["stack"]["w"][:, 0], 10 * np.arange(11))


def test_layers_are_transformed_one_by_one():
    rule = Rule(r"layer_(?P<layer>\d+)/w", "stack/w", np.transpose)
    source = {f"layer_{i}/w": array(2, 3, start=i) for i in range(2)}
    params = translate(source, target(stack__w=(2, 3, 2)), [rule])
    np.testing.assert_array_equal(params["stack"]["w"][1], source["layer_1/w"].T)


FULL = {"layer/w": array(3), "layer_1/w": array(3)}
PLAIN = [Rule("a", "m/w")]
ERRORS = {
    "source stray: 0 rules match, exactly one must": (
        {**FULL, "stray": array(1)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    "source a: 2 rules match": (
        {"a": array(3)},
        {"m__w": (3,)},
        [Rule("a", "m/w"), Rule(".", "m/b")],
    ),
    "source b: another source already fills m/w": (
        {"a": array(3), "b": array(3)},
        {"m__w": (3,)},
        [Rule("a|b", "m/w")],
    ),
    "source layer_01/w: another source already fills stack/w": (
        {**FULL, "layer_01/w": array(3)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    "target m/b: nothing fills it": ({"a": array(3)}, {"m__w": (3,), "m__b": (3,)}, PLAIN),
    "target m/w: the model has no such parameter": ({"a": array(3)}, {}, PLAIN),
    r"target m/w: shape \(3, 2\), the model needs \(2, 3\)": (
        {"a": array(3, 2)},
        {"m__w": (2, 3)},
        PLAIN,
    ),
    r"target stack/w: shape \(2, 3\), the model needs \(5, 3\)": (
        FULL,
        {"stack__w": (5, 3)},
        [STACK],
    ),
    r"target stack/w: layers \[0, 2\] leave gaps": (
        {"layer/w": array(3), "layer_2/w": array(3)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    r"target stack/w: layers \[1, 2\] leave gaps": (
        {"layer_1/w": array(3), "layer_2/w": array(3)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    "target stack/w: all input arrays must have the same shape": (
        {"layer/w": array(3), "layer_1/w": array(2)},
        {"stack__w": (2, 3)},
        [STACK],
    ),
    "target stack/w: filled as a whole and layer by layer": (
        {**FULL, "a": array(2, 3)},
        {"stack__w": (2, 3)},
        [STACK, Rule("a", "stack/w")],
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_what_does_not_fit_is_refused(message):
    source, shapes, rules = ERRORS[message]
    with pytest.raises(ValueError, match=f"weights do not fit the model:\n(.*\n)* *{message}"):
        translate(source, target(**shapes), rules)


def test_a_rule_must_match_the_whole_key():
    with pytest.raises(ValueError, match="source ab: 0 rules match"):
        translate({"ab": array(3)}, target(m__w=(3,)), PLAIN)


def test_all_culprits_are_listed_at_once():
    source = {"stray": array(1), "a": array(5)}
    with pytest.raises(ValueError, match="stray") as error:
        translate(source, target(m__w=(3,), m__b=(3,)), PLAIN)
    for culprit in ("source stray", "target m/b", "target m/w"):
        assert culprit in str(error.value)


@given(st.sets(st.sampled_from("abcdefg"), min_size=1), st.data())
def test_taking_anything_away_or_adding_anything_fails(names, data):
    """Total and injective: no source is left out, no target stays empty."""
    rules = [Rule(r"(?P<name>\w)", r"m/\g<name>")]
    source = {name: array(2) for name in names}
    shapes = {f"m__{name}": (2,) for name in names}
    assert flatten(translate(source, target(**shapes), rules)).keys() == {f"m/{n}" for n in names}
    name = data.draw(st.sampled_from(sorted(names)))
    fewer = {key: x for key, x in source.items() if key != name}
    with pytest.raises(ValueError, match=f"target m/{name}: nothing fills it"):
        translate(fewer, target(**shapes), rules)
    with pytest.raises(ValueError, match="target m/z: the model has no such parameter"):
        translate({**source, "z": array(2)}, target(**shapes), rules)


def test_unflatten_inverts_flatten():
    params = {"a/b": {"w": array(2), "b": array(3)}, "a": {"w": array(1)}}
    flat = flatten(params)
    assert flat.keys() == {"a/b/w", "a/b/b", "a/w"}
    assert unflatten(flat) == params

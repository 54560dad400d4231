"""`config.init_from`: a run starts from any weights, and a mismatch is named, not swallowed."""

import jax
import numpy as np
import pytest

import perceiver
from configs import digits
from perceiver.weights import mapping, native
from train.experiment import make
from train.run.init_from import with_weights

OTHER = {"classes": 13}


def experiment(**changes):
    c = digits.get_config("fourier,smoke")
    c.placement = "single"
    c.update_from_flattened_dict(changes)
    return make(c)


def exported(folder, spec, **changes):
    """Saves a model of random weights, and returns its parameters."""
    model = perceiver.build(dict(spec) | changes)
    params, state = jax.jit(model.init)(jax.random.key(5))
    labels = [str(i) for i in range(model.spec.classes)]
    usage = {"labels": labels, "image": {"mean": [0.5], "std": [0.5], "crop_fraction": 1.0}}
    native.save(folder, model, params, state, usage)
    return mapping.flatten(jax.device_get(params))


def fresh(this):
    return this.placement.init(this.init_state)


def test_all_weights_are_taken(tmp_path):
    this = experiment()
    theirs = exported(tmp_path, this.task.model.spec.to_dict())
    state = with_weights(this, fresh(this), str(tmp_path))
    for key, x in mapping.flatten(jax.device_get(state.params)).items():
        np.testing.assert_array_equal(x, theirs[key], err_msg=key)


def test_a_head_of_another_size_is_an_error_that_lists_it(tmp_path):
    this = experiment()
    exported(tmp_path, this.task.model.spec.to_dict(), **OTHER)
    with pytest.raises(ValueError, match=r"init_from\.ignore") as error:
        with_weights(this, fresh(this), str(tmp_path))
    rows = str(error.value).splitlines()[1:]
    assert [row.split(":")[0].strip() for row in rows] == [
        "outputs/decoder/out/b",
        "outputs/decoder/out/w",
    ]


def test_an_ignored_head_starts_afresh_and_the_rest_is_taken(tmp_path):
    this = experiment()
    theirs = exported(tmp_path, this.task.model.spec.to_dict(), **OTHER)
    before = fresh(this)
    state = with_weights(this, before, str(tmp_path), ["outputs/decoder/out"])
    ours = mapping.flatten(jax.device_get(state.params))
    old = mapping.flatten(jax.device_get(before.params))
    for key, x in ours.items():
        wanted = old[key] if key.startswith("outputs/decoder/out/") else theirs[key]
        np.testing.assert_array_equal(x, wanted, err_msg=key)


def test_a_path_to_ignore_that_fits_nothing_is_named(tmp_path):
    this = experiment()
    exported(tmp_path, this.task.model.spec.to_dict())
    with pytest.raises(ValueError, match=r"no parameter lies below \['outputs/dec'\]"):
        with_weights(this, fresh(this), str(tmp_path), ["outputs/dec"])


def test_learned_positions_of_another_image_size_are_interpolated(tmp_path):
    c = digits.get_config("learned,smoke")
    c.placement = "single"
    this = make(c)
    exported(tmp_path, this.task.model.spec.to_dict(), image_shape=(4, 4, 1))
    state = with_weights(this, fresh(this), str(tmp_path))
    table = state.params["inputs/positions"]["table"]
    assert table.shape[0] == 64
    small = native.load(tmp_path).params["inputs/positions"]["table"].reshape(4, 4, -1)
    # the corners of a bilinear enlargement are those of the small grid
    np.testing.assert_allclose(table[0], small[0, 0], atol=1e-6)
    np.testing.assert_allclose(table[-1], small[-1, -1], atol=1e-6)

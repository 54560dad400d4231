import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver
from benchmarks import blocks, dense, draw, measure, shapes
from benchmarks.forms import DENSE, Form

TOLERANCE = 1e-5  # relative: two ways to round the same sums in float32

LATENT_STACK = {
    "latents": 13,
    "latent_channels": 8,
    "layers": 2,
    "blocks": 2,
    "self_heads": 2,
}
IMAGE = {
    "kind": "image_classifier",
    "image_shape": (5, 7, 3),
    "classes": 11,
    "bands": 2,
    "query_channels": 6,
    **LATENT_STACK,
}
SPECS = {
    "io": IMAGE,
    "io without query residual": IMAGE | {"query_residual": False, "max_resolution": (3, 11)},
    "classical": IMAGE | {"head": "mean", "encoders": (0, 1, 1), "processors": (0, 1, 0)},
    "text": {
        "kind": "masked_lm",
        "max_length": 17,
        "embedding_channels": 6,
        "cross_heads": 2,
        "cross_qk_channels": 4,
        "cross_v_channels": 8,
        "self_qk_channels": 4,
        "query_heads": 2,
        "query_qk_channels": 4,
        **LATENT_STACK,
    },
}


@pytest.fixture(params=SPECS)
def case(request):
    """(model, its parameters, a batch of two) of one of the specs."""
    model = perceiver.build(SPECS[request.param])
    params = draw.params(jax.eval_shape(model.init, jax.random.key(0))[0])
    inputs = draw.batch(model.example_inputs(2), highest=256)
    if "input_mask" in inputs:
        inputs["input_mask"] = jnp.arange(17)[None] < jnp.array([17, 11])[:, None]
    return model, params, inputs


def test_whole_models_give_our_outputs(case):
    model, params, inputs = case
    ours, _ = jax.jit(model.apply)(params, {}, None, inputs)
    baseline = jax.jit(dense.build(model.spec))
    theirs = baseline(dense.unstack(params), dense.prepare(model.spec, inputs))
    assert measure.relative_error(theirs, ours) < TOLERANCE


def test_unstacking_loses_nothing(case):
    model, params, _ = case
    apart = dense.unstack(params)
    assert not any("/layers/" in path for path in apart)
    sizes = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (apart, params)]
    assert sizes[0] == sizes[1]
    path, arrays = next((p, a) for p, a in params.items() if "/layers/" in p)
    for layer in range(model.spec.layers):
        for name, array in arrays.items():
            cut = apart[path.replace("/layers/", f"/layers_{layer}/")][name]
            np.testing.assert_array_equal(cut, array[layer])


def test_a_spec_that_it_does_not_have_is_refused():
    with pytest.raises(ValueError, match="stem='conv'"):
        dense.build(IMAGE | {"stem": "conv"})


@pytest.mark.parametrize(
    ("kind", "shape", "form"),
    [
        ("encoder", shapes.IMAGENET, "separable"),
        ("encoder", shapes.ARBITRARY, "shared"),
        ("encoder", shapes.VIDEO, "shared"),
        ("decoder", shapes.FLOW, "separable"),
    ],
)
@pytest.mark.parametrize("work", ["forward", "gradient + content"])
def test_blocks_do_the_same_work_in_both_forms(kind, shape, form, work):
    shape = shape.tiny()
    latents, byte_array = shape.latents(2), shape.byte_array(2)
    outputs = latents.shape if kind == "encoder" else (2, shape.size, blocks.OUT_CHANNELS)
    cotangent = jnp.asarray(np.random.default_rng(5).standard_normal(outputs), jnp.float32)
    arguments = (blocks.draw_params(kind, latents, byte_array), latents, byte_array, cotangent)
    ours, baseline = (
        jax.jit(blocks.working(blocks.make(kind, f), work))(*arguments) for f in (Form(form), DENSE)
    )
    assert measure.relative_error(ours, baseline) < TOLERANCE
    if work != "forward":
        outputs, gradients = baseline
        assert outputs.shape == cotangent.shape
        assert jax.tree.structure(gradients[:2]) == jax.tree.structure(arguments[:2])
        assert [x.shape for x in gradients[2]] == [s.content.shape for s in byte_array.segments]
        assert all(jnp.abs(x).max() > 0 for x in gradients[2])


def test_a_gradient_without_content_leaves_it_out():
    shape = shapes.IMAGENET.tiny()
    latents, byte_array = shape.latents(1), shape.byte_array(1)
    params = blocks.draw_params("encoder", latents, byte_array)
    gradient = blocks.working(blocks.make("encoder", DENSE), "gradient")
    _, found = jax.eval_shape(gradient, params, latents, byte_array, latents)
    assert jax.tree.structure(found) == jax.tree.structure((params, latents))

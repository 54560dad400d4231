"""The dense form that benchmarks compare with computes what the library computes."""

import jax
import jax.numpy as jnp
import pytest

import perceiver
from benchmarks import attention, measure, models
from perceiver.kinds import released, specs

TOLERANCE = 1e-5  # relative: two ways to round the same sums in float32


def test_the_papers_sizes():
    for shape, size, channels in (
        (attention.IMAGENET, 50_176, 261),
        (attention.FLOW, 182_528, 322),
        (attention.VIDEO, 52_097, 704),
        (attention.ARBITRARY, 50_176, 261),
    ):
        assert (shape.size, shape.channels) == (size, channels)
        assert {part.channels for part in shape.parts} == {channels}


@pytest.mark.parametrize(
    ("kind", "shape", "form", "work"),
    [
        ("encoder", attention.IMAGENET, "separable", attention.WITH_CONTENT),
        ("encoder", attention.ARBITRARY, "shared", attention.FORWARD),
        pytest.param(
            *("encoder", attention.VIDEO, "shared", attention.FORWARD), marks=pytest.mark.slow
        ),
        ("decoder", attention.FLOW, "separable", attention.FORWARD),
    ],
)
def test_blocks_do_the_same_work_in_both_forms(kind, shape, form, work):
    given = attention.arguments(kind, shape.tiny(), 2)
    ours, dense = (
        jax.jit(attention.working(attention.block(kind, f), work))(*given) for f in (form, "dense")
    )
    assert measure.relative_error(ours, dense) < TOLERANCE
    if work != attention.FORWARD:
        _, (_, _, content) = dense
        assert all(jnp.abs(x).max() > 0 for x in content)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param(models.IMAGENET, {"blocks": 2, "layers": 1}, marks=pytest.mark.slow),
        pytest.param(models.TEXT, {"layers": 1}, marks=pytest.mark.slow),
        (models.CLASSICAL, {"encoders": (0, 1), "processors": (0, 0), "layers": 1}),
    ],
)
def test_whole_models_give_the_same_outputs(name, changes):
    spec = models.get_spec(name, smoke=True, **changes)
    model = perceiver.build(spec)
    params = measure.draw_params(jax.eval_shape(model.init, jax.random.key(0))[0])
    inputs = measure.draw_batch(model.example_inputs(2), highest=models.IDS)
    if "input_mask" in inputs:
        inputs["input_mask"] = jnp.arange(17)[None] < jnp.array([17, 11])[:, None]
    ours, _ = jax.jit(model.apply)(params, {}, None, inputs)
    baseline = jax.jit(models.dense(spec))
    theirs = baseline(models.unstack(params), models.dense_inputs(spec, inputs))
    assert measure.relative_error(theirs, ours) < TOLERANCE


def test_the_dense_count_is_about_the_compilers():
    # The dense form has no loop, so XLA counts it right; it adds norms, softmax, GELU.
    shape = attention.IMAGENET.tiny()
    given = jax.eval_shape(lambda: attention.arguments("encoder", shape, 1))
    run = attention.working(attention.block("encoder", "dense"), attention.FORWARD)
    counted = jax.jit(run).lower(*given).compile().cost_analysis()["flops"] / 1e9
    assert counted == pytest.approx(attention.gflop(shape, "dense", "forward"), rel=0.05)


def test_imagenet_as_worked_out_by_hand():
    # Per example: 40.5 GFLOP of dense attention; of it 0.6 are needed, and 2.8 for the latents.
    latent = (4 * 512 * 1024 * 261 + 4 * 512 * 1024**2) / 1e9
    forms = ("dense", "shared", "separable")
    dense, shared, separable = (
        attention.gflop(attention.IMAGENET, form, "forward") for form in forms
    )
    assert dense - latent == pytest.approx(40.5, abs=0.05)
    assert separable == pytest.approx(3.4, abs=0.1)
    assert separable < shared < dense


def test_the_training_step_is_of_the_given_model():
    spec = specs.parse(released.MODELS[models.TEXT])
    step = models.make_step(spec, 1)
    assert sum(x.size for x in jax.tree.leaves(step.state.params)) == 201_108_230

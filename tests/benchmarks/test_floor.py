import dataclasses

import jax
import jax.numpy as jnp
import pytest

from benchmarks import blocks, dense, floor, shapes
from perceiver.cross_attention import FEW_WEIGHTS
from perceiver.kinds import released, specs
from perceiver.summary.flops import forward, total


def test_the_papers_sizes():
    assert (shapes.IMAGENET.size, shapes.IMAGENET.channels) == (50_176, 261)
    assert (shapes.FLOW.size, shapes.FLOW.channels) == (182_528, 322)
    assert (shapes.VIDEO.size, shapes.VIDEO.channels) == (52_097, 704)
    assert (shapes.ARBITRARY.size, shapes.ARBITRARY.channels) == (50_176, 261)
    for shape in (shapes.IMAGENET, shapes.FLOW, shapes.VIDEO, shapes.ARBITRARY):
        assert {part.channels for part in shape.parts} == {shape.channels}
        assert shape.tiny().channels == shape.channels
        tiny = shape.tiny()
        assert FEW_WEIGHTS < tiny.queries * tiny.size < 4 * FEW_WEIGHTS


def test_the_dense_count_is_the_librarys():
    spec = specs.parse(released.MODELS["imagenet-fourier"])
    rows = [row for row in forward(spec) if row.part == "cross-attends"]
    assert floor.cross_attend(shapes.IMAGENET, "dense", "forward") == total(rows) / 1e9
    assert floor.model(spec, "dense", "forward", 3) == pytest.approx(3 * total(forward(spec)) / 1e9)


@pytest.mark.parametrize(
    ("kind", "shape"), [("encoder", shapes.IMAGENET), ("decoder", shapes.FLOW)]
)
@pytest.mark.parametrize("work", ["forward", "gradient + content"])
def test_the_dense_count_is_about_the_compilers(kind, shape, work):
    # The dense form has no loop, so XLA counts it right; it adds norms, softmax, GELU.
    shape = shape.tiny()
    latents, byte_array = jax.eval_shape(lambda: (shape.latents(1), shape.byte_array(1)))
    params = jax.eval_shape(lambda: blocks.draw_params(kind, latents, byte_array))
    outputs = latents.shape if kind == "encoder" else (1, shape.size, blocks.OUT_CHANNELS)
    function = blocks.working(blocks.make(kind, blocks.DENSE), work)
    cotangent = jax.ShapeDtypeStruct(outputs, jnp.float32)
    compiled = jax.jit(function).lower(params, latents, byte_array, cotangent).compile()
    if kind == "encoder":
        counted = floor.cross_attend(shape, "dense", work)
    else:
        counted = floor.decoder(shape, blocks.OUT_CHANNELS, "dense", work)
    assert compiled.cost_analysis()["flops"] / 1e9 == pytest.approx(counted, rel=0.05)


def test_imagenet_as_worked_out_by_hand():
    # Per example: 40.5 GFLOP of dense attention; of it 0.6 are needed, and 2.8 for the latents.
    latent = (4 * 512 * 1024 * 261 + 4 * 512 * 1024**2) / 1e9
    count = {form: floor.cross_attend(shapes.IMAGENET, form, "forward") for form in floor.FORMS}
    assert count["dense"] - latent == pytest.approx(40.5, abs=0.05)
    assert count["separable"] == pytest.approx(3.4, abs=0.1)
    assert count["plain"] == count["streaming"] == count["dense"]
    assert count["auto"] == count["separable"] < count["shared"] < count["dense"]
    assert floor.least(shapes.IMAGENET, "forward") == count["separable"]
    assert floor.least(shapes.ARBITRARY, "forward") == count["shared"]


@pytest.mark.parametrize("form", floor.FORMS)
@pytest.mark.parametrize("shape", [shapes.IMAGENET, shapes.VIDEO, shapes.ARBITRARY])
def test_more_work_costs_more(form, shape):
    works = [floor.cross_attend(shape, form, work) for work in blocks.WORKS]
    assert works[0] < works[1] <= works[2]
    assert floor.cross_attend(shape, form, "forward", 4) == pytest.approx(4 * works[0])
    assert floor.least(shape, "gradient") <= works[1]


def test_few_inputs_are_counted_as_they_are_planned():
    few = shapes.pixels(11)
    assert floor.cross_attend(few, "auto", "forward") == floor.cross_attend(few, "plain", "forward")


def test_a_whole_model_saves_what_its_cross_attends_save():
    spec = specs.parse(released.MODELS["perceiver-imagenet"])
    saved = floor.model(spec, "dense") - floor.model(spec, "least")
    one = floor.cross_attend(shapes.IMAGENET, "dense", "forward")
    one -= floor.cross_attend(shapes.IMAGENET, "separable", "forward")
    assert saved == pytest.approx(8 * one)
    text = specs.parse(released.MODELS["masked-lm-bytes"])
    assert floor.model(text, "least") == floor.model(text, "dense")


def test_a_decoder_that_absorbs_needs_less():
    for work in blocks.WORKS:
        dense_count, count = (floor.decoder(shapes.FLOW, 2, form, work) for form in ("dense", "x"))
        assert 1.5 < dense_count / count < 3.5
    more = dataclasses.replace(shapes.FLOW, queries=2 * shapes.FLOW.queries)
    ratio = floor.decoder(more, 2, "dense", "forward") / floor.decoder(
        shapes.FLOW, 2, "dense", "forward"
    )
    assert 1.5 < ratio < 2
    assert dense.EPSILON == 1e-5

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

import perceiver
from perceiver.kinds import released, specs
from perceiver.summary import flops
from train.report.model_flops import flops_per_example


def count(name, **changes):
    return flops_per_example(perceiver.build(released.MODELS[name] | changes))


def dense(name, **changes):
    spec = specs.parse(released.MODELS[name] | changes)
    return 3 * flops.per_example(flops.forward(spec))


@pytest.mark.parametrize("name", ["masked-lm-bytes", "vit-b-16", "bert-bytes"])
def test_models_that_do_all_of_the_dense_form_count_all_of_it(name):
    assert count(name) == dense(name)


def test_a_forced_plain_path_counts_the_dense_form():
    assert count("imagenet-fourier", cross_path="plain") == dense("imagenet-fourier")
    assert count("imagenet-fourier", cross_path="streaming") == dense("imagenet-fourier")


def test_work_that_an_exact_path_saves_is_not_credited():
    # By hand, forward: of 40.5 GFLOP of keys, values, logits and their sums, the separable path
    # needs the products with the 3 channels of content: 4 x 512 latents x 50,176 pixels x 3.
    saved = 4 * 50_176 * 261 * (261 + 512) - 4 * 512 * 50_176 * 3
    found = count("imagenet-fourier")
    assert found == pytest.approx(dense("imagenet-fourier") - 3 * saved)
    assert found / 3e9 == pytest.approx(365.9, abs=0.1)
    # Eight cross-attends save eight times as much.
    eight = dense("perceiver-imagenet") - count("perceiver-imagenet")
    assert eight == pytest.approx(8 * 3 * saved)


def test_a_shared_path_counts_products_with_all_channels():
    # Learned positions: keys and values are not formed; 4 x latents x elements x channels remain.
    projections = 4 * 50_176 * 512 * 512
    assert count("imagenet-learned") == pytest.approx(dense("imagenet-learned") - 3 * projections)


def test_video_with_sound_counts_each_segment():
    # Sound is a grid of one axis, with nothing to separate: products with all its channels.
    spec = specs.parse(released.MODELS["audioset-raw"])
    rows = flops.forward(spec)
    names = ("project keys", "project values", "logits", "weighted values")
    inputs = sum(row.flops for row in rows if row.operation in names and row.part[0] == "c")
    rest = flops.per_example(rows) - inputs
    model = perceiver.build(spec)
    array = perceiver.summary.byte_array_shapes(model)
    video, audio = (dataclasses.asdict(s)["content"].shape for s in array.segments)
    weights = 4 * spec.latents * len(spec.sharing.stages)
    elements = {"video": 16 * 28 * 28, "audio": 480}
    read = weights * (elements["video"] * video[-1] + elements["audio"] * array.channels)
    assert audio[-1] < array.channels
    assert flops_per_example(model) == pytest.approx(3 * (rest + read))


def test_what_is_told_is_never_more_than_the_dense_form():
    for name in ("imagenet-conv", "perceiver-audioset-mel", "perceiver-imagenet-2"):
        assert 0 < count(name) <= dense(name)


def test_a_kind_without_a_count_is_no_error(monkeypatch):
    def unknown(spec):
        raise KeyError(spec.kind)

    monkeypatch.setattr(flops, "forward", unknown)
    assert count("vit-b-16") == 0.0


def test_devices_that_split_the_inputs_change_nothing():
    devices = np.array(jax.devices()[:4]).reshape(2, 2)
    mesh = Mesh(devices, ("data", "sequence"), axis_types=(AxisType.Auto,) * 2)
    sequence = perceiver.Sequence(mesh, batch_axis="data")
    split = perceiver.build(released.MODELS["imagenet-conv"], sequence=sequence)
    assert flops_per_example(split) == count("imagenet-conv")

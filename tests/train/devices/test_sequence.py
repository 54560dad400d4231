"""The elements of an example split over devices, in training: what it takes, says and exchanges."""

import functools
import math
import re

import jax
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import perceiver
from configs import audioset, digits, masked_lm
from data import DatasetInfo
from train import experiment, step, tasks
from train.devices import placement

MESH = {"data": 2, "fsdp": 1, "sequence": 4}
BATCH = 16
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Bytes by which programs may differ: the smaller inputs have four for each of 64 or 256 elements of
# each of 16 examples.
FREE = 200
EXCHANGE = re.compile(
    r"= (\(.*?\)|\S+) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"
    r"(?:-start)?\("
)


def images(rows):
    """A classifier of images of rows x 16 pixels with Fourier positions, and the batch's shapes."""
    c = digits.get_config("perceiver,smoke")
    c.model.update(image_shape=(rows, 16, 1), cross_path="separable", encoders=(0,))
    c.model.update(processors=(0,), layers=1, blocks=1)
    shape, labels = (rows, 16, 1), tuple("0123456789")
    info = DatasetInfo("random", {}, labels, image_shape=shape, mean=(0.0,), std=(1.0,))
    batch = {"image": (shape, "float32"), "label": ((), "int32"), "mask": ((), "bool")}
    return c, info, batch


def texts(length):
    """A model of masked bytes whose inputs it may only stream."""
    c = masked_lm.get_config("smoke")
    c.data.seq_len = c.model.max_length = length
    c.model.update(cross_path="streaming", layers=1, blocks=1)
    names = {"tokens": "int32", "input_mask": "bool", "targets": "int32", "target_mask": "bool"}
    batch = {name: ((length,), dtype) for name, dtype in names.items()}
    return c, DatasetInfo(name="random", examples={}), batch


def exchanged(make, size, mesh=MESH):
    """Returns the shapes that a training step sends over the network, sorted, as HLO writes them.

    Those of parameters, and of the parts of them that the devices of a sequence have gradients of,
    are left out: learned positions grow with the inputs.
    """
    config, info, batch = make(size)
    place = placement.make("sharded", mesh)
    task, optimizer = tasks.make(config, info, place.sequence), optax.sgd(0.1)
    init = functools.partial(step.init_state, task, optimizer, 0, task.model.example_inputs(1))
    state, rows = place.abstract(init), NamedSharding(place.mesh, P(("data", "fsdp")))
    inputs = {
        name: jax.ShapeDtypeStruct((BATCH, *shape), np.dtype(dtype), sharding=rows)
        for name, (shape, dtype) in batch.items()
    }
    make_step = functools.partial(step.make_train_step, task, optimizer, seed=0)
    program = place.compile_train(make_step).lower(state, inputs).compile(FAST_COMPILE).as_text()
    arrays = [x for found in EXCHANGE.findall(program) for x in re.findall(r"\w+\[[\d,]*\]", found)]
    shapes = [x.shape for x in jax.tree.leaves(state.params) if x.shape]
    parts = [(first // mesh["sequence"], *rest) for first, *rest in shapes]
    own = {f"f32[{','.join(map(str, shape))}]" for shape in (*shapes, *parts)}
    return sorted(x for x in arrays if x not in own)


def size_in_bytes(arrays):
    shapes = [re.fullmatch(r"\w+\[([\d,]*)\]", x)[1].split(",") for x in arrays]
    return sum(4 * math.prod(int(n) for n in shape if n) for shape in shapes)


def test_what_is_exchanged_does_not_grow_with_an_image():
    small, large = (exchanged(images, rows) for rows in (16, 32))
    assert len(small) > 3
    assert abs(size_in_bytes(large) - size_in_bytes(small)) < FREE


@pytest.mark.slow  # test_parity.py has texts split over devices
def test_what_is_exchanged_does_not_grow_with_a_text():
    """But for the gradient of its learned positions, which are parameters."""
    small, large = (exchanged(texts, length) for length in (64, 128))
    assert len(small) > 3
    assert abs(size_in_bytes(large) - size_in_bytes(small)) < FREE


@pytest.mark.slow  # test_placement.py asks the same of a smaller network
def test_examples_stay_where_they_are_without_a_sequence_too():
    """Parameters are gathered, tokens and activations never: those lead with the batch."""
    found = exchanged(texts, 64, {"data": 2, "fsdp": 4, "sequence": 1})
    assert not [x for x in found if re.match(rf"\w+\[{BATCH}\b", x)]


def test_clips_are_split_by_frames_while_their_short_sound_is_not(rng):
    c = audioset.get_config("embedded,smoke")
    c.model.update(cross_path="separable", layers=1, blocks=1, audio="raw", encoders=(0,))
    c.model.update(processors=(0,), video_shape=(8, 8, 8, 3), video_patch=(1, 4, 4), video_bands=1)
    c.model.update(samples=3_840, samples_per_patch=384, classes=3)
    c.data.update(frames=8, image_size=8, audio_samples=3_840)
    info = DatasetInfo("clips:random", {}, ("a", "b", "c"), image_shape=(8, 8, 3))
    batch = {
        "video": rng.integers(256, size=(4, 8, 8, 8, 3)).astype(np.uint8),
        "audio": rng.uniform(-1, 1, (4, 3_840)).astype(np.float32),
        "labels": rng.random((4, 3)) < 0.5,
        "mask": np.ones(4, bool),
    }

    def gradients(place):
        task = tasks.make(c, info, place.sequence)
        plan = str(task.model.explain()["stage 1"])
        params, net_state = jax.jit(task.init)(jax.random.key(0), None)

        def loss(params, batch):
            rng = jax.random.key(1)
            return task.loss(params, net_state, rng, batch, is_training=True)[0]["loss"][0]

        lowered = jax.jit(jax.value_and_grad(loss)).lower(params, place.put(batch))
        return plan, jax.device_get(lowered.compile(FAST_COMPILE)(params, place.put(batch)))

    _, (value, expected) = gradients(placement.make("single"))
    plan, (ours, found) = gradients(placement.make("sharded", MESH))
    video, audio = plan.split("; audio")
    assert video.endswith("split over the 4 devices of 'sequence'")
    assert "not split: all 4 devices" in audio
    np.testing.assert_allclose(ours, value, rtol=1e-6)
    jax.tree.map(  # an array's rounding is of the size of its largest elements
        lambda x, y: np.testing.assert_allclose(
            x, y, rtol=1e-4, atol=max(1e-6, 3e-6 * abs(y).max())
        ),
        found,
        expected,
    )


def smoke(**changes):
    c = digits.get_config("fourier,smoke")
    c.placement = "sharded"
    c.mesh.update(MESH)
    c.update_from_flattened_dict(changes)
    return c


def test_the_plan_says_who_attends_to_what():
    def told(**changes):
        return str(experiment.make(smoke(**changes)).task.model.explain()["stage 1"])

    assert told(**{"model.cross_path": "separable"}).endswith(
        "separable, as requested; split over the 4 devices of 'sequence'"
    )
    assert told().endswith(  # few elements
        "weights for a head; not split: all 4 devices of 'sequence' read every element"
    )


def test_specs_and_parameters_do_not_depend_on_the_mesh():
    one = experiment.make(smoke(placement="pmap", **{"mesh.sequence": 1}))
    split = experiment.make(smoke())
    assert split.task.model.spec == one.task.model.spec
    shapes = [
        jax.tree.map(lambda x: (x.shape, str(x.dtype)), run.abstract_state().params)
        for run in (one, split)
    ]
    assert shapes[0] == shapes[1]


def test_rows_that_do_not_divide_are_refused_before_anything_runs():
    c = smoke(**{"model.cross_path": "streaming"})
    c.mesh.update(data=1, fsdp=1, sequence=8)
    c.data.update(source="noisy_digits", image_size=16)
    c.model.image_shape = (16, 16, 1)
    experiment.make(c)
    sequence = placement.make("sharded", {"data": 1, "fsdp": 1, "sequence": 8}).sequence
    model = perceiver.build(c.model.to_dict() | {"image_shape": (36, 36, 1)}, sequence=sequence)
    with pytest.raises(ValueError, match=r"'image': 36 rows .* evenly over 8 devices"):
        model.explain()


def test_a_model_without_cross_attends_is_refused():
    c = digits.get_config("convnet,smoke")
    c.placement = "sharded"
    c.mesh.update(MESH)
    with pytest.raises(ValueError, match=r"image_resnet has no cross-attends.*mesh.sequence=1"):
        experiment.make(c)

"""The baselines: against Haiku's own ResNet, a Transformer written out, and the papers' claims."""

import json

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver
from perceiver.inputs import permutation
from perceiver.kinds import specs
from perceiver.nn.byte_array import Segment
from perceiver.nn.convolution import convolve, convolve_segment
from perceiver.nn.layers import layer_norm
from perceiver.nn.positions import SeparableFourier
from perceiver.weights import formats, native

IMAGENET = {
    "kind": "image_resnet",
    "image_shape": (33, 38, 3),
    "classes": 11,
    "blocks_per_stage": (1, 2, 1, 1),
    "stage_channels": (2, 3, 5, 7),
}


@pytest.fixture(params=["resnet", "transformer"])
def spec(request, resnet_spec, transformer_spec):
    return resnet_spec if request.param == "resnet" else transformer_spec


@pytest.fixture
def image(rng):
    return lambda spec, batch=2: {
        "image": rng.standard_normal((batch, *spec["image_shape"])).astype(np.float32)
    }


@pytest.fixture
def run(image, draw_saved):
    """Runs the models of some specs on the same drawn weights and image, in evaluation."""

    def run(*found):
        inputs, saved = image(found[0]), draw_saved(found[0])
        state = jax.tree.map(np.abs, saved.state)  # variances
        return [
            np.asarray(jax.jit(perceiver.build(spec).apply)(saved.params, state, None, inputs)[0])
            for spec in found
        ]

    return run


def assert_close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * float(np.abs(expected).max())
    )


@pytest.mark.parametrize("seed", [0, 3])
def test_positions_are_convolved_as_if_they_were_concatenated(rng, seed):
    content = rng.standard_normal((2, 11, 14, 3)).astype(np.float32)
    positions = SeparableFourier.of_grid((11, 14), bands=2)
    segment = permutation.permute(Segment(jnp.asarray(content), positions), seed)
    w = rng.standard_normal((5, 5, segment.channels, 7)).astype(np.float32)
    dense = segment.dense().reshape(2, 11, 14, segment.channels)
    for stride, padding in ((2, "SAME"), (5, "VALID")):
        assert_close(
            convolve_segment(segment, w, stride, padding), convolve(dense, w, stride, padding)
        )


def theirs(path: str) -> str:
    """Haiku's name for a module of ours."""
    names = {"reduce": "0", "spatial": "1", "expand": "2"}
    module, *rest = path.removeprefix("resnet/").split("/", 1)
    if path.startswith("outputs"):
        return "res_net/~/logits"
    if module == "stem":
        return "res_net/~/" + ("initial_batchnorm" if rest else "initial_conv")
    _, stage, _, block = module.split("_")
    layer, *norm = rest[0].split("/")
    kind = "batchnorm" if norm else "conv"
    part = f"shortcut_{kind}" if layer == "shortcut" else f"{kind}_{names[layer]}"
    return f"res_net/~/block_group_{stage}/~/block_{block}/~/{part}"


def plain(path: str) -> str:
    """The same of blocks without a bottleneck."""
    return theirs(path.replace("/spatial", "/reduce").replace("/second", "/spatial"))


@pytest.mark.parametrize(("bottleneck", "is_training"), [(True, True), (False, False)])
def test_a_residual_network_is_haikus(bottleneck, is_training, image, draw_saved):
    spec = IMAGENET | {"bottleneck": bottleneck}
    saved, inputs = draw_saved(spec), image(spec, 3)
    name = theirs if bottleneck else plain
    state = jax.tree.map(np.abs, saved.state)
    tree = {name(path): leaves for path, leaves in saved.params.items()}
    averages = {
        name(path.rsplit("/~/")[0]) + "/~/" + path.rsplit("/~/")[1]: leaves
        for path, leaves in state.items()
    }

    def reference(x):
        net = hk.nets.ResNet(
            spec["blocks_per_stage"],
            spec["classes"],
            bn_config={"decay_rate": 0.9, "eps": 1e-5, "create_scale": True, "create_offset": True},
            bottleneck=bottleneck,
            initial_conv_config={"output_channels": spec["stage_channels"][0]},
            channels_per_group=[c * (4 if bottleneck else 1) for c in spec["stage_channels"]],
            use_projection=[bottleneck, True, True, True],
        )
        return net(x, is_training)

    model = perceiver.build(spec)
    actual, after = jax.jit(model.apply, static_argnames="is_training")(
        saved.params, state, None, inputs, is_training=is_training
    )
    expected, averages = jax.jit(hk.transform_with_state(reference).apply)(
        tree, averages, None, inputs["image"]
    )
    assert_close(actual, expected)
    for path, leaves in after.items():
        module, leaf = path.split("/~/")
        for key, x in leaves.items():
            assert_close(x, averages[f"{name(module)}/~/{leaf}"][key])


def attend_and_feed_forward(x, w, layer, heads):
    """One pre-norm layer, written out."""

    def get(path):
        return {k: v[layer] for k, v in w[f"processor/layers/self_attend/{path}"].items()}

    def linear(y, path):
        return y @ get(path)["w"] + get(path)["b"]

    def norm(y, path):
        return np.asarray(layer_norm(jnp.asarray(y), **get(path)))

    y = norm(x, "attend/norm")
    q, k, v = (
        linear(y, f"attend/attention/{name}").reshape(*y.shape[:2], heads, -1)
        for name in ("query", "key", "value")
    )
    logits = np.einsum("bthc,bThc->bhtT", q, k) / np.sqrt(q.shape[-1])
    weights = np.asarray(jax.nn.softmax(logits, axis=-1))
    y = np.einsum("bhtT,bThc->bthc", weights, v).reshape(y.shape)
    x = x + linear(y, "attend/attention/out")
    y = linear(norm(x, "feed_forward/norm"), "feed_forward/mlp/hidden")
    return x + linear(np.asarray(jax.nn.gelu(y)), "feed_forward/mlp/out")


@pytest.mark.parametrize(("patch_size", "positions"), [(1, "learned"), (2, "fourier")])
def test_a_transformer_is_what_it_says(transformer_spec, patch_size, positions, image, draw_saved):
    spec = transformer_spec | {"patch_size": patch_size, "positions": positions}
    saved, inputs = draw_saved(spec), image(spec)
    w, (height, width, _) = saved.params, spec["image_shape"]
    pixels = inputs["image"]
    if positions == "fourier":
        table = SeparableFourier.of_grid((height, width), bands=2).dense()
        table = np.broadcast_to(table.reshape(1, height, width, -1), (2, height, width, 10))
        pixels = np.concatenate([pixels, table], axis=-1)
    rows, columns = height // patch_size, width // patch_size
    patches = pixels.reshape(2, rows, patch_size, columns, patch_size, -1).swapaxes(2, 3)
    patches = patches.reshape(2, rows * columns, -1)
    x = patches @ w["inputs/project"]["w"].reshape(-1, 8) + w["inputs/project"]["b"]
    if positions == "learned":
        x = x + w["inputs/positions"]["table"]
    for layer in range(spec["layers"]):
        x = attend_and_feed_forward(x, w, layer, spec["heads"])
    features = np.asarray(layer_norm(jnp.asarray(x), **w["norm"]))
    logits = features.mean(axis=1) @ w["outputs/logits"]["w"] + w["outputs/logits"]["b"]

    model = perceiver.build(spec)
    run = jax.jit(lambda w, x: (model.encode(w, {}, x), model.apply(w, {}, None, x)[0]))
    found = run(w, inputs)
    assert_close(found[0], features)
    assert_close(found[1], logits)


def test_a_permutation_breaks_the_grid_of_convolutions_and_patches(spec, run):
    straight, permuted = run(spec, spec | {"permutation": 3})
    assert np.abs(permuted - straight).max() > 1e-2 * np.abs(straight).max()


def test_a_permutation_is_nothing_to_a_transformer_on_pixels(transformer_spec, run):
    spec = transformer_spec | {"patch_size": 1}
    straight, permuted = run(spec, spec | {"permutation": 3})
    assert not np.array_equal(permuted, straight)
    assert_close(permuted, straight)


def test_blocks_start_as_the_identity():
    model = perceiver.build(IMAGENET | {"blocks_per_stage": (2,), "stage_channels": (3,)})
    params, _ = jax.jit(model.init)(jax.random.key(0))
    last = [leaves for path, leaves in params.items() if path.endswith("/expand/batch_norm")]
    assert len(last) == 2
    assert not any(leaves["scale"].any() for leaves in last)


def test_the_small_stem_keeps_every_pixel(resnet_spec):
    sizes = {}
    for stem in ("small", "imagenet"):
        model = perceiver.build(resnet_spec | {"stem": stem})
        params, state = jax.eval_shape(model.init, jax.random.key(0))
        sizes[stem] = jax.eval_shape(model.encode, params, state, model.example_inputs(2)).shape
    assert sizes == {"small": (2, 6 * 7, 28), "imagenet": (2, 2 * 2, 28)}


def test_training_updates_the_averages_and_evaluation_uses_them(resnet_spec, image):
    spec = resnet_spec | {"blocks_per_stage": (1,), "stage_channels": (5,)}
    model, inputs = perceiver.build(spec), image(spec, 3)
    params, state = jax.jit(model.init)(jax.random.key(0))
    params["outputs/logits"]["w"] = jnp.ones_like(params["outputs/logits"]["w"])
    apply = jax.jit(model.apply, static_argnames="is_training")
    _, after = apply(params, state, None, inputs, is_training=True)
    moved = jax.tree.map(lambda x, y: bool((x != y).any()), state, after)
    assert all(jax.tree.leaves(moved))
    frozen, unchanged = apply(params, after, None, inputs)
    assert jax.tree.all(jax.tree.map(np.array_equal, unchanged, after))
    alone = apply(params, after, None, {"image": inputs["image"][:1]})[0]
    assert_close(alone, frozen[:1])  # an example's answer does not depend on its batch


def test_without_latents_there_is_nothing_to_attend(spec, image, draw_saved):
    saved, inputs = draw_saved(spec), image(spec)
    model = saved.model
    assert model.attention_maps(saved.params, saved.state, inputs) == []
    assert model.explain() == {}


def test_the_head_reads_what_encode_gives(spec, image, draw_saved):
    saved, inputs = draw_saved(spec), image(spec)
    state = jax.tree.map(np.abs, saved.state)

    @jax.jit
    def run(params, state, inputs):
        features = saved.model.encode(params, state, inputs)
        logits, _ = saved.model.apply(params, state, None, inputs)
        return features, logits, saved.model.decode(params, state, features, {})

    features, logits, decoded = run(saved.params, state, inputs)
    assert features.ndim == 3
    assert_close(decoded, logits)


def test_bfloat16_is_close_and_stays_so_inside(spec, run):
    full, half = run(spec, spec | {"dtype": "bfloat16"})
    assert half.dtype == np.float32
    assert_close(half, full, 0.1)
    assert not np.allclose(half, full, rtol=1e-5)


def test_a_spec_survives_json(spec):
    parsed = specs.parse(spec)
    assert specs.parse(json.loads(json.dumps(parsed.to_dict()))) == parsed


def test_pictures_are_classified_by_an_exported_model(spec, draw_saved, tmp_path, rng):
    saved = draw_saved(spec)
    state = jax.tree.map(np.abs, saved.state)
    native.save(tmp_path, saved.model, saved.params, state, saved.usage)
    model = perceiver.load(tmp_path)
    picture = rng.integers(0, 256, (20, 24, 3), np.uint8)
    ((label, probability), *_) = model.classify(picture)
    assert label in saved.usage["labels"]
    assert 0 < probability <= 1
    assert model.embed(picture).shape[0] == 1
    assert model.attention_maps(picture) == []


def test_hugging_face_has_no_such_model(spec, draw_saved, tmp_path):
    reason = {
        "image_resnet": "Perceiver IO models only, not image_resnet",
        "image_transformer": "positions=fourier, required learned; .* class_token=False, required",
    }[spec["kind"]]
    with pytest.raises(ValueError, match=reason):
        formats.save(tmp_path, draw_saved(spec), to="huggingface")


def test_elements_cannot_be_split_over_devices(spec):
    mesh = jax.make_mesh((2,), ("sequence",))
    with pytest.raises(ValueError, match="has no cross-attends, whose elements"):
        perceiver.build(spec, sequence=perceiver.Sequence(mesh, "sequence"))


ERRORS = [
    ("resnet", {"stage_channels": (5,)}, r"blocks_per_stage=\(2, 1\) must be \(blocks\)"),
    ("resnet", {"stage_channels": ()}, r"stage_channels=\(\) must have one entry"),
    ("resnet", {"stem": "conv"}, "stem='conv' is unknown; choose one of imagenet, small"),
    ("resnet", {"positions": "learned"}, "positions='learned' is unknown; .* none, fourier"),
    ("resnet", {"latents": 3}, "image_resnet has no field 'latents'"),
    ("transformer", {"heads": 3}, "channels=8 must be a multiple of heads=3"),
    ("transformer", {"patch_size": 4}, r"image_shape=.* multiples of patch_size=4"),
    ("transformer", {"positions": "none"}, "positions='none' is unknown"),
    ("transformer", {"kernel": "flash"}, "kernel='flash' is unknown"),
    ("transformer", {"permutation": 2**32}, "must be at most 4294967295"),
]


@pytest.mark.parametrize(("kind", "change", "message"), ERRORS, ids=str)
def test_wrong_values_are_refused(kind, change, message, resnet_spec, transformer_spec):
    spec = {"resnet": resnet_spec, "transformer": transformer_spec}[kind]
    with pytest.raises(ValueError, match=message):
        specs.parse(spec | change)

"""Tiny random models of Hugging Face's own classes: into ours, out again, the same outputs.

Sizes are as small as their constructors allow. Where their class does not compute what DeepMind's
weights were trained by, it is corrected here, and the difference this makes is asserted too.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import perceiver
from perceiver.text import tokenizer
from perceiver.weights import huggingface

torch = pytest.importorskip("torch", reason="needs the extra `parity`")
transformers = pytest.importorskip("transformers", reason="needs the extra `parity`")

TOLERANCE = 1e-5  # of the largest magnitude in an output
BACKBONE = {
    "num_latents": 5,
    "d_latents": 12,
    "num_blocks": 2,
    "num_self_attends_per_block": 3,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "hidden_act": "gelu_pytorch_tanh",
}


def as_it_is(model) -> None:
    """Nothing to correct: the class computes DeepMind's model."""


def without_query_residual(model) -> None:
    attention = model.perceiver.decoder.decoder.decoding_cross_attention.attention
    assert attention.use_query_residual
    attention.use_query_residual = False


def with_same_padding(model) -> None:
    """For images of 20 x 24: 10 x 12 after the convolution, 5 x 6 after the pool."""
    net = model.perceiver.input_preprocessor.convnet
    net.conv.zero_pad_2d = torch.nn.ZeroPad2d((2, 3, 2, 3))
    pool = torch.nn.MaxPool2d(kernel_size=3, stride=2)
    net.max_pool = torch.nn.Sequential(torch.nn.ConstantPad2d((0, 1, 0, 1), -torch.inf), pool)


def image_inputs(draw, *sides):
    image = draw.standard_normal((2, *sides, 3)).astype(np.float32)
    return {"inputs": image.transpose(0, 3, 1, 2)}, {"image": image}


def text_inputs(draw):
    tokens = draw.integers(6, 262, (2, 13))
    mask = np.ones((2, 13), bool)
    return {"inputs": tokens, "attention_mask": mask.astype(np.int64)}, {
        "tokens": tokens.astype(np.int32),
        "input_mask": mask,
    }


def flow_inputs(draw):
    """Their class wants the 3x3 neighbourhood of each pixel, made outside: [B, 2, 27, H, W]."""
    frames = draw.uniform(-1, 1, (2, 2, 7, 11, 3)).astype(np.float32)
    padded = np.pad(frames, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    patches = np.concatenate(
        [padded[:, :, i : i + 7, j : j + 11] for i in range(3) for j in range(3)], axis=-1
    )
    return {"inputs": np.moveaxis(patches, -1, 2)}, {"frames": frames}


def video_inputs(draw):
    video = draw.uniform(0, 1, (2, 3, 8, 12, 3)).astype(np.float32)
    audio = draw.uniform(-1, 1, (2, 48)).astype(np.float32)
    pixels, patches = draw.permutation(3 * 8 * 12)[:19], np.array([2, 0])
    theirs = {
        "inputs": {
            "image": np.moveaxis(video, -1, 2),
            "audio": audio[..., None],
            "label": np.zeros((2, 7), np.float32),
        },
        "subsampled_output_points": {"image": pixels, "audio": patches, "label": None},
    }
    queries = {"video_queries": pixels.astype(np.int32), "audio_queries": patches.astype(np.int32)}
    return theirs, {"video": video, "audio": audio, **queries}


@dataclasses.dataclass(frozen=True)
class Case:
    cls: str
    config: dict[str, Any]
    inputs: Callable  # generator -> (theirs, ours)
    correct: Callable = as_it_is


CASES = {
    "imagenet-fourier": Case(
        "PerceiverForImageClassificationFourier",
        {"num_labels": 7, "image_size": [9, 17]},
        lambda draw: image_inputs(draw, 9, 17),
    ),
    "imagenet-learned": Case(
        "PerceiverForImageClassificationLearned",
        {"num_labels": 7, "image_size": 9},
        lambda draw: image_inputs(draw, 9, 9),
        without_query_residual,
    ),
    "imagenet-conv": Case(
        "PerceiverForImageClassificationConvProcessing",
        {"num_labels": 7, "image_size": [20, 24]},
        lambda draw: image_inputs(draw, 20, 24),
        with_same_padding,
    ),
    "masked-lm-bytes": Case(
        "PerceiverForMaskedLM",
        {
            "d_model": 24,
            "max_position_embeddings": 13,
            "num_cross_attention_heads": 2,
            "qk_channels": 10,
            "v_channels": 12,
        },
        text_inputs,
    ),
    "text-classifier": Case(
        "PerceiverForSequenceClassification",
        {"d_model": 24, "max_position_embeddings": 13, "num_labels": 3},
        text_inputs,
    ),
    "optical-flow": Case("PerceiverForOpticalFlow", {"train_size": [7, 11]}, flow_inputs),
    "video-autoencoder": Case(
        "PerceiverForMultimodalAutoencoding",
        {
            "num_labels": 7,
            "num_frames": 3,
            "image_size": 5,
            "audio_samples_per_frame": 16,
            "samples_per_patch": 16,
            "output_shape": [1, 3, 8, 12],
            "output_num_channels": 10,
        },
        video_inputs,
    ),
}


def to_torch(x):
    if isinstance(x, dict):
        return {key: to_torch(value) for key, value in x.items()}
    return None if x is None else torch.tensor(np.ascontiguousarray(x))


def run_theirs(model, inputs):
    with torch.no_grad():
        logits = model.eval()(**to_torch(inputs)).logits
    return jax.tree.map(lambda x: x.numpy(), logits)


def run_ours(saved, inputs):
    return jax.jit(saved.model.apply)(saved.params, saved.state, None, inputs)[0]


def as_theirs(outputs):
    """Arrays on the host, under their names: what we call video, they call image."""
    if isinstance(outputs, dict):
        return {{"video": "image"}.get(name, name): np.asarray(x) for name, x in outputs.items()}
    return np.asarray(outputs)


def deviation(actual, expected) -> float:
    """The largest difference, by the largest magnitude; of several outputs, the worst."""
    actual = as_theirs(actual)
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        return max(deviation(actual[name], expected[name]) for name in expected)
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


def random_model(case):
    """No bias is zero, no scale one, no average as at the start; each matters in the outputs."""
    torch.manual_seed(0)
    config = transformers.PerceiverConfig(**(BACKBONE | case.config))
    model = getattr(transformers, case.cls)(config)
    for name, x in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith("num_batches_tracked"):
            x.data.fill_(1234)
        elif name.endswith("running_var"):
            x.data.uniform_(0.5, 2)
        elif x.ndim > 1 and name.endswith("weight"):
            x.data.normal_(std=x[0].numel() ** -0.5)
        else:
            x.data.add_(torch.randn_like(x) * 0.3)
    return model


@pytest.fixture(scope="module", params=CASES)
def example(request, tmp_path_factory):
    """One kind: the case, their model, its folder, what we read of it, inputs of both."""
    case = CASES[request.param]
    model = random_model(case)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    saved = huggingface.read(folder, conv_kernel="torch")
    return case, model, folder, saved, *case.inputs(np.random.default_rng(3))


def test_a_model_of_theirs_gives_the_same_outputs_here(example):
    case, model, _, saved, theirs, ours = example
    found = run_ours(saved, ours)
    if case.correct is not as_it_is:
        assert deviation(found, run_theirs(model, theirs)) > 1e-2  # so it is worth a word
    model = copy.deepcopy(model)
    case.correct(model)
    assert deviation(found, run_theirs(model, theirs)) < TOLERANCE


def test_a_model_of_ours_gives_the_same_outputs_there(example, tmp_path):
    case, _, _, saved, theirs, ours = example
    huggingface.save(tmp_path, saved)
    model, report = getattr(transformers, case.cls).from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values()), report
    case.correct(model)
    assert deviation(run_ours(saved, ours), run_theirs(model, theirs)) < TOLERANCE


@pytest.mark.parametrize("example", ["imagenet-conv", "masked-lm-bytes"], indirect=True)
def test_a_model_that_pytorch_trained_has_the_exact_gelu(example, tmp_path):
    case, model, _, _, theirs, ours = example
    exact = getattr(transformers, case.cls)(
        transformers.PerceiverConfig(**(BACKBONE | case.config | {"hidden_act": "gelu"}))
    )
    exact.load_state_dict(model.state_dict())
    exact.save_pretrained(tmp_path / "theirs")
    case.correct(exact)
    expected = run_theirs(exact, theirs)
    default = perceiver.load(tmp_path / "theirs", conv_kernel="torch")
    assert deviation(run_ours(default, ours), expected) > TOLERANCE  # the released models' form
    loaded = perceiver.load(tmp_path / "theirs", conv_kernel="torch", activation="gelu_erf")
    assert deviation(run_ours(loaded, ours), expected) < TOLERANCE
    loaded.save(tmp_path / "ours", to="huggingface")  # which marks it
    again = perceiver.load(tmp_path / "ours")
    assert again.spec == loaded.spec
    there = getattr(transformers, case.cls).from_pretrained(tmp_path / "ours")
    case.correct(there)
    assert deviation(run_ours(again, ours), run_theirs(there, theirs)) < TOLERANCE


def test_weights_come_back_bit_for_bit(example, tmp_path):
    *_, saved, _, _ = example
    draw = np.random.default_rng(7)
    params = jax.tree.map(lambda x: draw.standard_normal(x.shape).astype(x.dtype), saved.params)
    huggingface.save(tmp_path, dataclasses.replace(saved, params=params))
    again = huggingface.read(tmp_path)
    for one, other in ((params, again.params), (saved.state, again.state)):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert (x.shape, x.dtype, x.tobytes()) == (y.shape, y.dtype, y.tobytes())
    assert again.usage.get("labels") == saved.usage.get("labels")
    assert again.model.spec == saved.model.spec


def test_their_own_file_of_what_we_saved_is_read_as_before(example, tmp_path):
    """The word about the kernel in config.json survives their `from_pretrained` and back."""
    case, *_, saved, _, _ = example
    huggingface.save(tmp_path / "ours", saved)
    model = getattr(transformers, case.cls).from_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20kB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").is_file()
    again = huggingface.read(tmp_path / "theirs")
    jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)


@pytest.mark.parametrize("archive", [True, False], ids=["new", "old"])
def test_files_of_torch_are_read(example, archive, tmp_path):
    _, model, folder, saved, _, _ = example
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    path = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=archive)
    again = huggingface.read(tmp_path, conv_kernel="torch")
    jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)


def test_padding_is_ignored_by_both(tmp_path):
    """Compared at real places: at the others DeepMind's decoder attends to nothing, theirs does."""
    case = CASES["masked-lm-bytes"]
    model = random_model(case)
    model.save_pretrained(tmp_path)
    saved = huggingface.read(tmp_path)
    theirs, ours = case.inputs(np.random.default_rng(3))
    whole = np.asarray(run_ours(saved, ours))
    mask = np.ones((2, 13), bool)
    mask[1, 7:] = False
    theirs["attention_mask"], ours["input_mask"] = mask.astype(np.int64), mask
    found, expected = np.asarray(run_ours(saved, ours)), run_theirs(model, theirs)
    assert deviation(found[0], expected[0]) < TOLERANCE
    assert deviation(found[1, :7], expected[1, :7]) < TOLERANCE
    assert deviation(whole[1, :7], expected[1, :7]) > 1e-3  # the mask matters


def test_half_precision_is_read_as_float32(tmp_path):
    model = random_model(CASES["imagenet-fourier"]).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "safe")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((tmp_path / "safe" / "config.json").read_bytes())
    latents = model.state_dict()["perceiver.embeddings.latents"].float().numpy()
    for folder in (tmp_path / "safe", tmp_path):
        table = huggingface.read(folder).params["latents"]["table"]
        assert table.dtype == np.float32
        np.testing.assert_array_equal(table, latents)


def test_their_tokenizer_reads_what_we_save(tmp_path):
    folder = tmp_path / "text"
    case = CASES["masked-lm-bytes"]
    random_model(case).save_pretrained(tmp_path / "theirs")
    huggingface.save(folder, huggingface.read(tmp_path / "theirs"))
    tokens = transformers.PerceiverTokenizer.from_pretrained(folder)
    assert tokens.model_max_length == 13
    text = "zwölf ∑"
    assert tokens(text).input_ids == [4, *tokenizer.encode(text).tolist(), 5]  # CLS, SEP
    assert tokens.mask_token_id == tokenizer.MASK


def test_their_tokenizer_prepares_texts_for_a_classifier_as_we_do(tmp_path):
    model = random_model(CASES["text-classifier"])
    model.save_pretrained(tmp_path)
    loaded = perceiver.load(tmp_path)
    tokens = transformers.PerceiverTokenizer(model_max_length=13)
    for texts in ("zwölf ∑", ("ab", "cde")):
        given = tokens(*([texts] if isinstance(texts, str) else texts), return_tensors="pt")
        with torch.no_grad():
            logits = model.eval()(inputs=given.input_ids, attention_mask=given.attention_mask)
        expected = torch.softmax(logits.logits[0], -1).max().item()
        assert loaded.classify(texts)[0][1] == pytest.approx(expected, abs=1e-5)


def test_their_image_processor_reads_what_we_save(tmp_path):
    random_model(CASES["imagenet-fourier"]).save_pretrained(tmp_path / "theirs")
    saved = huggingface.read(tmp_path / "theirs")
    image = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_fraction": 0.5}
    usage = {"image": image, "labels": [f"thing {i}" for i in range(7)]}
    huggingface.save(tmp_path / "ours", dataclasses.replace(saved, usage=usage))
    module = pytest.importorskip("transformers.models.perceiver.image_processing_pil_perceiver")
    processor = module.PerceiverImageProcessorPil.from_pretrained(tmp_path / "ours")
    picture = np.random.default_rng(0).integers(0, 256, (36, 44, 3), dtype=np.uint8)
    pixels = processor(picture, return_tensors="np").pixel_values
    assert pixels.shape == (1, 3, 9, 17)
    assert list(processor.image_std) == [0.4, 0.5, 0.6]
    assert huggingface.read(tmp_path / "ours").usage == usage

"""Tiny random BERT and ViT of Hugging Face's own classes: into ours, out again, the same outputs.

Sizes are distinct, no head is as wide as there are heads, and no bias is zero, no scale one.
"""

import json

import jax
import numpy as np
import pytest

import perceiver
from perceiver.weights import huggingface, tensors

torch = pytest.importorskip("torch", reason="needs the extra `parity`")
transformers = pytest.importorskip("transformers", reason="needs the extra `parity`")

TOLERANCE = 1e-5  # of the largest magnitude in an output
BACKBONE = {
    "hidden_size": 15,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 30,
}
BERT = BACKBONE | {"vocab_size": 29, "max_position_embeddings": 13, "type_vocab_size": 3}
VIT = BACKBONE | {"image_size": [6, 10], "patch_size": 2, "num_channels": 3, "num_labels": 7}
REAL = np.arange(11) < np.array([[11], [7], [3]])  # of three texts, padded to eleven tokens


def bert(**changes):
    return transformers.BertForMaskedLM(transformers.BertConfig(**(BERT | changes)))


def vit(**changes):
    return transformers.ViTForImageClassification(transformers.ViTConfig(**(VIT | changes)))


def bert_inputs(draw):
    tokens = draw.integers(0, 29, REAL.shape)
    theirs = {"input_ids": tokens, "attention_mask": REAL.astype(np.int64)}
    return theirs, {"tokens": tokens.astype(np.int32), "input_mask": REAL}


def vit_inputs(draw):
    image = draw.standard_normal((2, 6, 10, 3)).astype(np.float32)
    return {"pixel_values": image.transpose(0, 3, 1, 2)}, {"image": image}


CASES = {"bert": (bert, bert_inputs), "vit": (vit, vit_inputs)}


def randomise(model):
    torch.manual_seed(0)
    for name, x in model.named_parameters():
        if x.ndim > 1 and name.endswith("weight"):
            x.data.normal_(std=x[0].numel() ** -0.5)
        else:
            x.data.add_(torch.randn_like(x) * 0.3)
    return model.eval()


def run_theirs(model, inputs):
    with torch.no_grad():
        given = {k: torch.tensor(np.ascontiguousarray(x)) for k, x in inputs.items()}
        return model(**given).logits.numpy()


def run_ours(saved, inputs):
    return np.asarray(jax.jit(saved.model.apply)(saved.params, saved.state, None, inputs)[0])


def deviation(actual, expected) -> float:
    """The largest difference at real places, by the largest magnitude."""
    assert actual.shape == expected.shape
    real = REAL if len(expected) == len(REAL) else slice(None)
    return np.abs(actual - expected)[real].max() / np.abs(expected[real]).max()


@pytest.fixture(scope="module", params=CASES)
def example(request, tmp_path_factory):
    """One class: its name, their model, its folder, what we read of it, inputs of both."""
    make, inputs = CASES[request.param]
    model = randomise(make())
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return request.param, model, folder, huggingface.read(folder), *inputs(np.random.default_rng(3))


def test_a_model_of_theirs_gives_the_same_outputs_here(example):
    _, model, _, saved, theirs, ours = example
    assert deviation(run_ours(saved, ours), run_theirs(model, theirs)) < TOLERANCE


def test_weights_come_back_bit_for_bit(example, tmp_path):
    """Theirs into ours and out again: the same file, which their class loads without a word."""
    _, model, folder, saved, theirs, _ = example
    huggingface.save(tmp_path / "back", saved)
    before, after = (
        {k: x.read() for k, x in tensors.read(path / "model.safetensors").items()}
        for path in (folder, tmp_path / "back")
    )
    assert before.keys() == after.keys()
    for name, x in before.items():
        assert (x.dtype, x.tobytes()) == (after[name].dtype, after[name].tobytes()), name
    again, report = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values()), report
    np.testing.assert_array_equal(run_theirs(again.eval(), theirs), run_theirs(model, theirs))
    read = huggingface.read(tmp_path / "back")
    assert (read.model.spec, read.usage) == (saved.model.spec, saved.usage)


def test_types_of_tokens_are_theirs(tmp_path):
    model = randomise(bert())
    model.save_pretrained(tmp_path)
    saved = huggingface.read(tmp_path)
    theirs, ours = bert_inputs(np.random.default_rng(5))
    types = np.random.default_rng(7).integers(0, 3, REAL.shape)
    whole = run_ours(saved, ours)
    found = run_ours(saved, ours | {"token_types": types.astype(np.int32)})
    expected = run_theirs(model, theirs | {"token_type_ids": types})
    assert deviation(found, expected) < TOLERANCE
    assert deviation(whole, expected) > 1e-2


def test_files_of_torch_and_old_names_are_read(tmp_path):
    """A state dict holds the tied arrays twice; older files hold heads that are not used."""
    model = randomise(bert())
    model.save_pretrained(tmp_path / "new")
    (tmp_path / "config.json").write_bytes((tmp_path / "new" / "config.json").read_bytes())
    arrays = model.state_dict()
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        arrays = {k.replace(f"LayerNorm{new}", f"LayerNorm{old}"): x for k, x in arrays.items()}
    arrays["bert.embeddings.position_ids"] = torch.arange(13)[None]
    arrays["cls.seq_relationship.weight"] = torch.zeros(2, 15)
    path = tmp_path / "pytorch_model.bin"
    torch.save(arrays, path)
    again, expected = huggingface.read(tmp_path), huggingface.read(tmp_path / "new")
    jax.tree.map(np.testing.assert_array_equal, again.params, expected.params)
    torch.save(arrays | {"cls.predictions.decoder.weight": torch.zeros(29, 15)}, path)
    with pytest.raises(ValueError, match=r"decoder.weight differs from bert.embeddings.word"):
        huggingface.read(tmp_path)


def test_their_processor_prepares_square_pictures_alike(tmp_path):
    """Of another filter: theirs is bilinear by default, so it is told to be bicubic, as ours."""
    randomise(vit(image_size=10)).save_pretrained(tmp_path)
    module = pytest.importorskip("transformers.models.vit.image_processing_pil_vit")
    processor = module.ViTImageProcessorPil(
        size={"height": 10, "width": 10}, resample=3, image_mean=[0.4, 0.5, 0.6]
    )
    processor.save_pretrained(tmp_path)
    model = perceiver.load(tmp_path)
    assert model.usage["image"] == {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.5, 0.5, 0.5],
        "crop_fraction": 1.0,
    }
    picture = np.random.default_rng(0).integers(0, 256, (23, 23, 3), dtype=np.uint8)
    pixels = processor(picture, return_tensors="np").pixel_values
    found = model._prepare(picture)["image"]
    np.testing.assert_allclose(found, pixels.transpose(0, 2, 3, 1), atol=1e-5)
    (label, probability), *_ = model.classify(picture)
    assert label.startswith("class ")
    assert 1 / 7 < probability < 1
    config = json.loads((tmp_path / "config.json").read_text())
    names = {str(i): f"Ding {i}" for i in range(7)}
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": names}))
    assert perceiver.load(tmp_path).classify(picture)[0][0].startswith("Ding ")

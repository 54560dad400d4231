"""BERT and ViT: their functions derived anew in numpy, their files without PyTorch."""

import dataclasses
import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest
import scipy.special
import tokenizers

import perceiver
from perceiver.kinds import specs
from perceiver.kinds.resize import resize
from perceiver.weights import huggingface, inspection
from perceiver.weights.huggingface.classes import TRANSFORMERS
from perceiver.weights.huggingface.config import spec_of
from perceiver.weights.huggingface.export import config_of, meaning
from perceiver.weights.huggingface.names import rules
from perceiver.weights.mapping import expand, mismatches
from perceiver.weights.native import Saved
from perceiver.weights.stored import StoredArray

CLOSE = 1e-5
GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
NAMES = json.loads((GOLDEN / "transformer_names.json").read_text())

_module = importlib.util.spec_from_file_location("make_names", GOLDEN / "make_names.py")
make_names = importlib.util.module_from_spec(_module)
_module.loader.exec_module(make_names)

BERT = {
    "kind": "masked_lm_transformer",
    "vocabulary": 29,
    "max_length": 11,
    "layers": 2,
    "channels": 15,
    "heads": 5,
    "widening": 2,
    "activation": "gelu_erf",
    "residual": "post_norm",
    "norm_epsilon": 1e-12,
    "embedding_norm": True,
    "token_types": 3,
    "head_transform": True,
}
VIT = {
    "kind": "image_transformer",
    "image_shape": (6, 10, 3),
    "classes": 7,
    "layers": 2,
    "channels": 15,
    "heads": 5,
    "widening": 2,
    "patch_size": 2,
    "positions": "learned",
    "class_token": True,
    "norm_epsilon": 1e-12,
    "activation": "gelu_erf",
}
MODELS = {"bert": BERT, "vit": VIT}


def norm(x, p):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * p["scale"] + p["offset"]


def linear(x, p):
    return x @ p["w"] + p["b"]


def gelu(x):
    return x * (1 + scipy.special.erf(x / np.sqrt(2))) / 2


def attend(x, params, path, mask):  # one head after the other
    query, key, value = (linear(x, params[f"{path}/{k}"]) for k in ("query", "key", "value"))
    outs = []
    for head in range(5):
        part = np.s_[..., 3 * head : 3 * head + 3]
        logits = query[part] @ key[part].swapaxes(-1, -2) / np.sqrt(3)
        weights = np.exp(logits - logits.max(-1, keepdims=True)) * mask[:, None]
        outs.append(weights / weights.sum(-1, keepdims=True) @ value[part])
    return linear(np.concatenate(outs, -1), params[f"{path}/out"])


def layers(x, params, mask, *, post):
    """Devlin et al.: x = norm(x + f(x)), twice a layer; ViT: x = x + f(norm(x))."""
    scope = "processor/layers/self_attend/"
    for i in range(2):
        p = {
            k.removeprefix(scope): {n: y[i] for n, y in v.items()}
            for k, v in params.items()
            if scope in k
        }
        branches = {
            "attend": lambda y, p=p: attend(y, p, "attend/attention", mask),
            "feed_forward": lambda y, p=p: linear(
                gelu(linear(y, p["feed_forward/mlp/hidden"])), p["feed_forward/mlp/out"]
            ),
        }
        for name, branch in branches.items():
            own = p[f"{name}/norm"]
            x = norm(x + branch(x), own) if post else x + branch(norm(x, own))
    return x


def in_double(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def test_bert_is_what_its_paper_says(rng, draw_saved):
    saved = draw_saved(BERT)
    tokens = rng.integers(0, 29, (3, 7)).astype(np.int32)
    types = rng.integers(0, 3, (3, 7)).astype(np.int32)
    mask = np.arange(7) < np.array([[7], [5], [2]])
    inputs = {"tokens": tokens, "input_mask": mask, "token_types": types}
    found = np.asarray(jax.jit(saved.model.apply)(saved.params, {}, None, inputs)[0])
    p = in_double(saved.params)
    x = p["embedding"]["table"][tokens] + p["inputs/positions"]["table"][:7]
    x = norm(x + p["inputs/token_types"]["table"][types], p["inputs/norm"])
    x = layers(x, p, mask, post=True)
    x = norm(gelu(linear(x, p["outputs/transform"])), p["outputs/norm"])
    expected = x @ p["embedding"]["table"].T + p["outputs"]["b"]
    np.testing.assert_allclose(found[mask], expected[mask], atol=CLOSE * np.abs(expected).max())


def test_vit_is_what_its_paper_says(rng, draw_saved):
    saved = draw_saved(VIT)
    image = rng.standard_normal((2, 6, 10, 3)).astype(np.float32)
    found = np.asarray(jax.jit(saved.model.apply)(saved.params, {}, None, {"image": image})[0])
    p = in_double(saved.params)
    patches = image.reshape(2, 3, 2, 5, 2, 3).swapaxes(2, 3).reshape(2, 15, 12)
    project = p["inputs/project"] | {"w": p["inputs/project"]["w"].reshape(12, 15)}
    x = np.concatenate(
        [np.broadcast_to(p["inputs/class_token"]["table"], (2, 1, 15)), linear(patches, project)], 1
    )
    x = layers(x + p["inputs/positions"]["table"], p, np.ones((2, 16), bool), post=False)
    expected = linear(norm(x, p["norm"])[:, 0], p["outputs/logits"])
    np.testing.assert_allclose(found, expected, atol=CLOSE * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_a_papers_base_model_fills_ours_and_nothing_is_left(name):
    shapes = {key: tuple(shape) for key, shape in make_names.expand(NAMES[name]).items()}
    sizes = spec_of({"architectures": [name], "num_labels": 2}, shapes)
    assert spec_of({}, shapes)["kind"] == sizes["kind"]  # the names alone tell the class
    model = perceiver.build(sizes)
    tree = jax.eval_shape(model.init, jax.random.key(0))[0]
    source = {key: StoredArray(shape, np.dtype(np.float32), None) for key, shape in shapes.items()}
    assert mismatches(source, tree, rules(model.spec)) == []
    table = expand(rules(model.spec), tree)
    assert {key for key, slot in table.items() if slot.target} == source.keys()
    assert len({(slot.target, slot.layer) for slot in table.values() if slot.target}) == len(source)


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_comes_back(name, draw_saved, tmp_path):
    saved = draw_saved(MODELS[name])
    labels = {"labels": [f"thing {i}" for i in range(7)]} if name == "vit" else {}
    image = {"image": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_fraction": 0.5}}
    usage = {"tokenizer": "bytes"} if name == "bert" else image | labels
    huggingface.save(tmp_path, Saved(saved.model, saved.params, {}, usage))
    again = perceiver.load(tmp_path)
    assert (again.spec, again.usage) == (saved.model.spec, usage)
    jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)
    found = inspection.inspect(tmp_path)
    assert found["model"]["spec"] == saved.model.spec.to_dict()
    assert "network" in inspection.render(found)


def test_without_its_tokeniser_bert_takes_ids(draw_saved, tmp_path):
    saved = draw_saved(BERT)
    huggingface.save(tmp_path / "theirs", Saved(saved.model, saved.params, {}, {}))
    perceiver.load(tmp_path / "theirs").save(tmp_path / "ours")
    for folder in ("theirs", "ours"):
        model = perceiver.load(tmp_path / folder)
        assert model.usage == {"tokenizer": "external"}
        for use in (model.fill_mask, model.embed):
            with pytest.raises(ValueError, match=r"without its tokeniser: put tokenizer\.json"):
                use("a [MASK]")
    ids = np.array([3, 5, 7], np.int32)
    assert model.embed(ids).shape == (1, 15)
    inputs = {"tokens": ids[None], "input_mask": np.ones((1, 3), bool)}
    assert model(inputs).shape == (1, 3, 29)
    with pytest.raises(ValueError, match="text 0 has 12 tokens, but the model reads 1 to 11"):
        model.embed(np.zeros(12, np.int32))


@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
def test_with_its_tokeniser_bert_reads_texts(file, draw_saved, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "."]
    words += [f"[unused{i}]" for i in range(29 - len(words))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    library = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"))
    saved = draw_saved(BERT)
    folder = tmp_path / "theirs"
    huggingface.save(folder, Saved(saved.model, saved.params, {}, {}))
    if file == "vocab.txt":
        (folder / file).write_text("\n".join(words))
    else:
        library.save(str(folder / file))
    model = perceiver.load(folder)
    ids = np.array(library.encode("The cats sat.").ids, np.int32)
    assert ids.tolist() == [2, 5, 6, 7, 8, 9, 3]
    expected = model.embed(ids)
    for to in ("native", "huggingface"):
        model.save(tmp_path / to, to=to)
        assert (tmp_path / to / "tokenizer.json").is_file()
    for again in (model, perceiver.load(tmp_path / "native"), perceiver.load(tmp_path / to)):
        np.testing.assert_array_equal(again.embed("The cats sat."), expected)
    filled = model.fill_mask("the [MASK] sat", top_k=3)
    tokens = np.array([[2, 5, 4, 8, 3]], np.int32)
    logits = model({"tokens": tokens, "input_mask": np.ones((1, 5), bool)})
    best = 5 + logits[0, 2, 5:].argmax()  # no special token
    assert filled.spans[0].candidates[0][0][0] == words[best].removeprefix("##")
    assert (filled.spans[0].start, filled.spans[0].stop) == (1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported; known are gelu, gelu_new"),
        ({"intermediate_size": 100}, "intermediate_size=100 is not a multiple of hidden_size=768"),
        ({"hidden_size": "768"}, "hidden_size='768' must have the type of 768"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True must have the type"),
        ({"is_decoder": True}, "is_decoder=True is not supported, only False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False is not supported"),
        ({"position_embedding_type": "relative_key"}, "='relative_key' is not supported"),
    ],
)
def test_configs_without_a_counterpart_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        spec_of({"architectures": ["BertForMaskedLM"]} | change, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv_bias": False}, "qkv_bias=False is not supported"),
        ({"image_size": [6]}, r"image_size=\[6\] is neither one side length nor two"),
    ],
)
def test_vits_without_a_counterpart_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        spec_of({"architectures": ["ViTForImageClassification"]} | change, {})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "bert",
            {"residual": "pre_norm"},
            "BertForMaskedLM requires .*residual=pre_norm, required post",
        ),
        ("bert", {"head_transform": False}, "head_transform=False, required True"),
        ("bert", {"embedding_norm": False}, "embedding_norm=False, required True"),
        ("vit", {"class_token": False}, "ViTForImageClassification requires .*class_token=False"),
        ("vit", {"positions": "fourier"}, "positions=fourier, required learned"),
        ("vit", {"permutation": 3}, "permutation=3, required 0"),
    ],
)
def test_models_that_their_classes_are_not_are_named(name, change, message):
    with pytest.raises(ValueError, match=message):
        config_of(specs.parse(MODELS[name] | change), {})


def test_every_class_reads_what_it_writes():
    for name, module in TRANSFORMERS.items():
        spec = specs.parse(MODELS[module.MODEL_TYPE])
        config = config_of(spec, {})
        assert config["architectures"] == [name]
        assert meaning(specs.parse(spec_of(config, {}))) == meaning(spec)


def test_types_of_tokens_are_checked():
    model = perceiver.build(BERT)
    inputs = {"tokens": np.zeros((2, 5), np.int32), "input_mask": np.ones((2, 5), bool)}
    for types, message in (
        (np.zeros((2, 4), np.int32), r"must be integers \(2, 5\) as tokens, got int32 \(2, 4\)"),
        (np.zeros((2, 5), np.float32), "must be integers"),
        (np.full((2, 5), 3, np.int32), r"token_types 0..3 are outside 0..2"),
    ):
        with pytest.raises(ValueError, match=message):
            model.check(inputs | {"token_types": types})
    plain = perceiver.build(BERT | {"token_types": 0})
    with pytest.raises(ValueError, match="takes no token_types"):
        plain.check(inputs | {"token_types": np.zeros((2, 5), np.int32)})


def test_another_size_leaves_the_class_tokens_position(draw_saved):
    saved = draw_saved(VIT)
    spec, params = resize(saved.model.spec, saved.params, (12, 20))
    before, after = (x["inputs/positions"]["table"] for x in (saved.params, params))
    assert after.shape == (1 + 6 * 10, 15)
    np.testing.assert_array_equal(after[0], before[0])
    shapes = jax.eval_shape(perceiver.build(spec).init, jax.random.key(0))[0]
    assert shapes["inputs/positions"]["table"].shape == after.shape
    same, again = resize(saved.model.spec, saved.params, (6, 10))
    assert same == saved.model.spec
    np.testing.assert_allclose(again["inputs/positions"]["table"], before, atol=1e-6)


def test_bfloat16_reaches_tokens(draw_saved):
    model = perceiver.build(dataclasses.replace(specs.parse(BERT), dtype="bfloat16"))
    params = jax.eval_shape(model.init, jax.random.key(0))[0]
    assert jax.eval_shape(model.encode, params, {}, model.example_inputs(2)).dtype == "bfloat16"

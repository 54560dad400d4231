"""`python -m perceiver.weights verify`: right weights pass, all others are told apart from them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import perceiver
from perceiver.kinds import released, specs
from perceiver.text import tokenizer
from perceiver.weights import (
    __main__ as commands,
)
from perceiver.weights import formats, native, reference_outputs, tensors, verify
from perceiver.weights.huggingface.export import meaning
from perceiver.weights.mapping import flatten, unflatten


@pytest.fixture(scope="module")
def saved(small_text_spec, draw_saved):
    return draw_saved(small_text_spec)


@pytest.fixture(scope="module")
def source(saved, tmp_path_factory):
    """The model as an exported folder."""
    folder = tmp_path_factory.mktemp("native") / "model"
    formats.save(folder, saved)
    return folder


def run(*argv):
    return commands.main([str(x) for x in argv])


IDS = np.arange(17)[None].astype(np.int32) + 7
INPUTS = {"tokens": IDS, "input_mask": IDS < 20}


@pytest.fixture(scope="module")
def answer(saved):
    logits, _ = jax.jit(saved.model.apply)(saved.params, saved.state, None, INPUTS)
    return np.asarray(logits[0], float)


@pytest.fixture
def record(saved, answer, monkeypatch):
    """What the tiny model answers, as if it were a released one."""
    monkeypatch.setitem(released.MODELS, "tiny", saved.model.spec.to_dict())
    return reference_outputs.ReferenceOutputs(
        model="tiny",
        inputs=lambda: INPUTS,
        logits=tuple(map(tuple, answer[:3, :3])),
        greedy=tuple(int(i) for i in answer[5:9].argmax(axis=-1)),
        positions=slice(5, 9),
        tolerance=5e-4,
    )


def test_a_model_that_answers_as_recorded_is_verified(source, record, monkeypatch, capsys):
    monkeypatch.setattr(commands, "verify", functools.partial(verify.verify, records=[record]))
    assert run("verify", source) == 0
    out = capsys.readouterr().out
    assert f"{source}: verified" in out
    assert "outputs match those recorded for tiny: logits within" in out
    assert "with gelu_tanh" in out


@pytest.mark.parametrize(("offset", "outcome"), [(4e-4, 0), (6e-4, 1)])
def test_the_digits_decide(saved, record, offset, outcome):
    logits = tuple(
        tuple(x + offset * (i == j) for j, x in enumerate(row))
        for i, row in enumerate(record.logits)
    )
    report = verify.verify(saved, [dataclasses.replace(record, logits=logits)])
    assert report.outcome == outcome
    assert ("logits within" if outcome == 0 else "differ from") in report.lines[-1]


def test_answers_of_the_exact_gelu_are_known_too(saved, record):
    exact = perceiver.build(saved.model.spec.to_dict() | {"activation": "gelu_erf"})
    logits, _ = jax.jit(exact.apply)(saved.params, saved.state, None, record.inputs())
    theirs = dataclasses.replace(record, logits=tuple(map(tuple, np.asarray(logits[0][:3, :3]))))
    difference = np.abs(np.asarray(theirs.logits) - np.asarray(record.logits)).max()
    assert difference > 0
    report = verify.verify(dataclasses.replace(saved, model=exact), [theirs])
    assert report.outcome == verify.Outcome.VERIFIED
    assert "with gelu_erf" in report.lines[-1]


def test_hugging_faces_copy_of_a_released_model_is_known_too(saved, record, tmp_path):
    formats.save(tmp_path, saved, to="huggingface")
    assert verify.verify(formats.load(tmp_path), [record]).outcome == verify.Outcome.VERIFIED


@pytest.mark.parametrize("name", released.MODELS)
def test_released_models_differ_in_what_they_mean(name):
    spec = specs.parse(released.MODELS[name])
    same = [x for x, y in released.MODELS.items() if meaning(specs.parse(y)) == meaning(spec)]
    assert same == [name]


def test_how_it_is_computed_does_not_matter(saved, record):
    spec = dataclasses.replace(saved.model.spec, dtype="bfloat16", cross_path="plain")
    other = dataclasses.replace(saved, model=perceiver.build(spec))
    assert verify.verify(other, [record]).outcome == verify.Outcome.VERIFIED


@pytest.mark.parametrize(
    "name", ["latents/table", "outputs/decoder/cross_attend/feed_forward/mlp/out/b"]
)
def test_an_array_that_is_a_little_off_is_found(saved, record, name):
    def nudge(x):  # the same for all channels, no norm would let it pass
        return x + 0.01 * np.arange(x.shape[-1], dtype=np.float32).reshape(
            (1,) * (x.ndim - 1) + (-1,)
        )

    params = unflatten({k: nudge(x) if k == name else x for k, x in flatten(saved.params).items()})
    report = verify.verify(dataclasses.replace(saved, params=params), [record])
    assert report.outcome == verify.Outcome.WRONG
    assert "differ from the recorded ones by" in "\n".join(report.lines)


def test_other_likely_ids_are_wrong(saved, record):
    wrong = dataclasses.replace(record, greedy=(1, 2, 3, 4))
    report = verify.verify(saved, [wrong])
    assert report.outcome == verify.Outcome.WRONG
    assert "recorded (1, 2, 3, 4)" in report.lines[-1]


def test_arrays_that_are_not_finite_are_named(saved, source, tmp_path, capsys):
    arrays = {name: x.read() for name, x in native.arrays(source).items()}
    arrays["latents/table"][2, 3] = np.nan
    tensors.write(tmp_path / "model.safetensors", arrays)
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    assert run("verify", tmp_path) == 1
    out = capsys.readouterr().out
    assert "WRONG" in out
    assert "not finite (NaN or infinity): latents/table" in out


def test_without_a_record_it_is_said_so(source, capsys):
    assert run("verify", source) == 2
    out = capsys.readouterr().out
    assert "complete and finite, not verified" in out
    assert "no recorded activations are known for this masked_lm (only for masked-lm-bytes)" in out


def test_a_broken_file_is_wrong_and_a_wrong_command_is_neither(source, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-4])
    assert run("verify", tmp_path) == 1
    assert "model.safetensors: broken file" in capsys.readouterr().err
    for argv in ([], ["convert", "a", "b"], ["verify"], ["convert", "a", "b", "--to", "onnx"]):
        with pytest.raises(SystemExit) as exit_:
            run(*argv)
        assert exit_.value.code == 64


def test_the_recorded_sentence_is_the_quoted_one():
    inputs = reference_outputs.masked_sentence()
    record = reference_outputs.RECORDS[0]
    perceiver.build(released.MODELS[record.model]).check(inputs)
    tokens, mask = inputs["tokens"][0], inputs["input_mask"][0]
    assert tokens[51:60].tolist() == [tokenizer.MASK] * 9
    assert tokenizer.decode(tokens) + " missing." == reference_outputs.SENTENCE
    assert tokenizer.decode(np.array(record.greedy)) == " missing."
    assert mask.tolist() == [True] * 60 + [False] * 1988
    assert (tokens[60:] == tokenizer.PAD).all()

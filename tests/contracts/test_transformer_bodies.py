"""`--config.model.body=transformer`: every config builds with it, trains, is used."""

import contextlib
import importlib
import io

import jax
import numpy as np
import pytest

import perceiver
import train.loop
from data import DatasetInfo
from perceiver import describe
from train import pictures
from train.resolve import resolve

# One variant of each file whose model is a Perceiver, and what one gives its model to use.
VARIANTS = {
    "audioset": "embedded",
    "digits": "learned",
    "glue": "multitask-query",
    "images": "cifar10",
    "imagenet": "conv",
    "masked_lm": "sentencepiece",
    "text_classification": "embedded",
}
TRAINED = {
    "digits": lambda model: model.classify(np.zeros((9, 7, 1), np.uint8)),
    "text_classification": lambda model: model.classify("x = 1"),
}


def get_config(name, variant):
    config = importlib.import_module(f"configs.{name}").get_config(f"{variant},smoke")
    config.model.body = "transformer"
    return config


@pytest.mark.parametrize("name", VARIANTS)
def test_a_config_builds(name):
    config = get_config(name, VARIANTS[name])
    side, channels = config.data.image_size, config.data.channels
    info = DatasetInfo(
        name="stand-in",
        examples={"train": 99},
        labels=("a", "b", "c"),
        image_shape=(side, side, channels),
    )
    model = perceiver.build(resolve(config, info).model.to_dict())
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    assert "project" in params
    assert "latents" not in params
    outputs = jax.eval_shape(
        lambda *args: model.apply(*args[:2], None, args[2])[0],
        params,
        state,
        model.example_inputs(2),
    )
    assert all(x.shape[0] == 2 for x in jax.tree.leaves(outputs))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "digits" else pytest.mark.slow) for name in TRAINED],
)
def test_it_is_trained_and_used(name, tmp_path, capsys):
    config = get_config(name, "")
    config.placement = "single"
    config.model.update(layers=1, blocks=1)
    results = train.loop.run(config, tmp_path)
    assert results["loss"] > 0
    model = perceiver.load(tmp_path)
    assert model.config["body"] == "transformer"
    label, probability = TRAINED[name](model)[0]
    assert isinstance(label, str)
    assert 0 < probability < 1
    with pytest.raises(ValueError, match=r"has body=|not text_classifier"):
        model.save(tmp_path / "theirs", to="huggingface")
    pictures.main([str(tmp_path)])  # of its attention there is none
    assert "attention" not in capsys.readouterr().out
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        describe.main([str(tmp_path)])
    assert (
        "network     1 self-attends (4 heads, pre_norm) of 32 channels on all" in shown.getvalue()
    )
    assert "latents     none" in shown.getvalue()

"""What a config leaves to the data."""

import pytest

from configs import common, sentences
from data import DatasetInfo
from train.resolve import resolve

IMAGENET = 1_281_167
INFO = DatasetInfo(
    name="pictures",
    examples={"train": IMAGENET, "validation": 50_000},
    labels=("ant", "bee", "cat"),
    image_shape=(23, 29, 3),
)


def config(**fields):
    model = {"kind": "image_classifier", "image_shape": (), "classes": 0}
    sizes = {"latents": 5, "latent_channels": 8, "layers": 1, "self_heads": 2, "query_channels": 8}
    c = common.get_config("classification", model | sizes)
    c.data.batch_size = 1024
    c.update_from_flattened_dict(fields)
    return c


def test_epochs_become_steps_of_whole_batches():
    open_config = config(
        **{"train.steps": 0, "train.epochs": 110.0, "train.eval_every": 0, "train.save_every": 0}
    )
    resolved = resolve(open_config, INFO)
    assert resolved.train.steps == 137_625  # 110 * 1,281,167 / 1024 = 137,625.4
    assert resolved.optim.steps == 137_625
    assert resolved.train.eval_every == resolved.train.save_every == 1251
    assert open_config.train.steps == 0  # the given one is left as it is
    assert resolved.is_locked


def test_given_steps_win_over_epochs():
    resolved = resolve(config(**{"train.steps": 7, "train.epochs": 110.0}), INFO)
    assert (resolved.train.steps, resolved.optim.steps) == (7, 7)


def test_classes_and_shape_come_from_the_data():
    resolved = resolve(config(), INFO)
    assert resolved.model.classes == 3
    assert resolved.model.image_shape == (23, 29, 3)
    given = resolve(config(**{"model.classes": 5, "model.image_shape": (7, 7, 1)}), INFO)
    assert (given.model.classes, given.model.image_shape) == (5, (7, 7, 1))


def test_a_warm_up_may_be_a_share_of_the_steps():
    fields = {"train.steps": 0, "train.epochs": 1.0, "optim.warmup_fraction": 0.1}
    resolved = resolve(config(**fields), INFO)
    assert (resolved.optim.steps, resolved.optim.warmup_steps) == (1251, 125)
    with pytest.raises(ValueError, match=r"optim\.warmup_fraction=1\.5 must lie between"):
        resolve(config(**fields | {"optim.warmup_fraction": 1.5}), INFO)


def test_a_sentence_encoder_has_classes_where_it_classifies():
    for objective, classes in (("classification", 3), ("negatives", 0)):
        open_config = config(**{"task": "sentences", "loss.objective": objective})
        assert resolve(open_config, INFO).model.classes == classes


def test_the_length_of_pairs_is_the_models():
    for pooling, length in (("mean", 128), ("cls", 127)):
        open_config = sentences.get_config("embedded")
        open_config.model.pooling = pooling
        assert resolve(open_config, INFO).data.seq_len == length


def test_resolving_twice_changes_nothing():
    once = resolve(config(**{"train.steps": 0, "train.epochs": 2.0}), INFO)
    assert resolve(once, INFO).to_dict() == once.to_dict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train.steps": 0}, r"train\.steps=0 and train\.epochs=0\.0: set one of them"),
        (
            {"train.steps": 0, "train.epochs": float("nan")},
            r"train\.epochs=nan: set one of them above 0",
        ),
        (
            {"train.steps": 0, "train.epochs": 1e-4},
            r"less than one batch of data\.batch_size=1024",
        ),
    ],
)
def test_no_number_of_steps_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        resolve(config(**fields), INFO)


def test_data_without_classes_is_an_error():
    text = DatasetInfo(name="text", examples={"train": 11, "validation": 5})
    with pytest.raises(ValueError, match=r"model\.classes is unset and data set 'text' does not"):
        resolve(config(), text)

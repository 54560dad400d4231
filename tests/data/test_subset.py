import types

import numpy as np
import pytest

import data
from data import subset
from data.dataset import Dataset
from data.images import digits


class Numbers:
    """Examples that are their own indices, and say so."""

    def __len__(self):
        return 23

    def example(self, index, epoch):
        return {"x": np.int32(index), "epoch": np.int32(epoch)}

    def name(self, stored):
        return f"number {stored}"


def part(split="train", **fields):
    config = types.SimpleNamespace(**{"train_examples": 0, "eval_examples": 0} | fields)
    return subset.of_split(Dataset(Numbers(), ()), config, split).source


def chosen(examples):
    return [int(x["x"]) for x in every(part(train_examples=examples))]


def every(source):
    return [source.example(i, 0) for i in range(len(source))]


def test_larger_parts_hold_the_smaller_ones():
    parts = [set(chosen(n)) for n in (3, 7, 23)]
    assert [len(part) for part in parts] == [3, 7, 23]
    assert parts[0] < parts[1] < parts[2]
    assert chosen(7) == chosen(7) != list(range(7))


def test_evaluations_see_evenly_spaced_examples():
    source = part("validation", eval_examples=4)
    assert [int(x["x"]) for x in every(source)] == [0, 5, 11, 17]
    assert len(part("train", eval_examples=4)) == 23
    assert len(part("validation", train_examples=4)) == 23


def test_examples_keep_their_names():
    source = part(train_examples=5)
    for index in range(5):
        stored = source.stored(index, epoch=0)
        assert source.name(stored) == f"number {source.example(index, 0)['x']}"


@pytest.mark.parametrize("examples", [-1, 24])
def test_a_part_that_is_not_there_is_refused(examples):
    with pytest.raises(ValueError, match=f"train_examples={examples} must be between 1 and 23"):
        part(train_examples=examples)
    with pytest.raises(ValueError, match=f"eval_examples={examples} must be between 1 and 23"):
        part("validation", eval_examples=examples)


def test_training_sees_the_part_alone_and_evaluation_everything(make_config):
    config = make_config(source="digits", image_size=8, channels=1, train_examples=40)
    assert data.info(config).examples == {"train": 40, "validation": 599}
    batches = data.load(config, "train", batch_size=40, seed=0, train=True)
    first, second = next(batches), next(batches)  # two epochs
    batches.close()
    assert sorted(map(bytes, first["image"])) == sorted(map(bytes, second["image"]))
    held_out = data.load(config, "validation", batch_size=8, seed=0, train=False)
    assert held_out.num_examples == len(digits.arrays("validation")[1])
    with pytest.raises(ValueError, match="must be between 1 and 1198"):
        data.info(make_config(source="digits", image_size=8, channels=1, train_examples=1199))

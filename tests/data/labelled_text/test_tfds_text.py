"""GLUE's tasks in TFDS's format, written here with their true features and few examples."""

import numpy as np
import pytest

import data
from data.labelled_text import tfds_text
from perceiver.text import tokenizer
from tests.data import glue_sets

CLASSES, write = glue_sets.CLASSES, glue_sets.write


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    root = tmp_path_factory.mktemp("glue")
    for task in CLASSES:
        write(root, task)
    return root


def read(config, split):
    """Returns [(texts, label, task)] of one pass."""
    batches = data.load(config, split, batch_size=4, seed=0, train=False)
    found = []
    for batch in batches:
        for i in np.flatnonzero(batch["mask"]):
            ids = batch["tokens"][i][batch["input_mask"][i]]
            parts = np.split(ids, np.flatnonzero(ids == tokenizer.SEP))
            task = batch["task"][i].item() if "task" in batch else None
            texts = tuple(map(tokenizer.decode, parts))
            found.append((texts, batch["label"][i].item(), task))
    batches.close()
    return found


@pytest.mark.parametrize("task", CLASSES)
def test_every_task_is_read(task, glue, make_config):
    config = make_config(source=f"tfds_text:glue/{task}", data_dir=str(glue), seq_len=97)
    facts = data.info(config)
    assert facts.labels == (CLASSES[task] or ("score",))
    assert facts.examples["train"] == 11
    found = read(config, "validation")
    fields = tfds_text.GLUE[task]
    split = "validation_matched" if task == "mnli" else "validation"
    value = 0.75 if task == "stsb" else 3 % len(CLASSES[task])
    assert found[3] == (tuple(f"{split} {field} 3" for field in fields), value, None)


def test_mnli_has_two_validation_sets(glue, make_config):
    both = make_config(source="tfds_text:glue/mnli", data_dir=str(glue), seq_len=97)
    assert data.info(both).examples == {"train": 11, "validation": 22}
    rows = []
    for name in ("matched", "mismatched"):
        one = make_config(source=f"tfds_text:glue/mnli_{name}", data_dir=str(glue), seq_len=97)
        assert data.info(one).examples == {"train": 11, "validation": 11}
        rows += read(one, "validation")
    assert rows == read(both, "validation")


def test_several_tasks_are_read_as_one(glue, make_config):
    names = ("cola", "stsb", "mnli")
    source = "tfds_text:" + "+".join(f"glue/{name}" for name in names)
    config = make_config(source=source, data_dir=str(glue), seq_len=97)
    facts = data.info(config)
    assert facts.tasks == {"cola": 2, "stsb": 1, "mnli": 3}
    assert facts.labels == (
        *("cola: unacceptable", "cola: acceptable", "stsb: score"),
        *("mnli: entailment", "mnli: neutral", "mnli: contradiction"),
    )
    assert facts.examples == {"train": 33, "validation": 44}
    found = read(config, "validation")
    assert [task for _, _, task in found] == [0] * 11 + [1] * 11 + [2] * 22
    assert found[14][1] == 0.75
    assert found[0][0] == ("validation sentence 0",)


def test_another_set_says_its_fields(tmp_path, make_config):
    write(tmp_path, "own", fields=("body", "title"), name="reviews")
    config = make_config(source="tfds_text:reviews", data_dir=str(tmp_path), seq_len=97)
    with pytest.raises(ValueError, match=r"no feature 'text'.*set data\.text_fields"):
        data.info(config)
    config.text_fields = ("title", "body")
    assert read(config, "validation")[2][0] == ("validation title 2", "validation body 2")
    config.label_field = "stars"
    with pytest.raises(ValueError, match=r"no feature 'stars'.*set data\.label_field"):
        data.info(config)


def test_a_task_that_is_not_there_says_how_to_prepare_it(tmp_path, make_config):
    config = make_config(source="tfds_text:glue/rte", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"data\.prepare tfds glue/rte"):
        data.info(config)
    config.source = "tfds_text:glue/rte+glue/rte"
    with pytest.raises(ValueError, match="names a task twice"):
        data.info(config)

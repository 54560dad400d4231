import re
import subprocess
import sys

import numpy as np
import pytest

import data
from data import dataset, stdlib_text


@pytest.mark.parametrize(
    "name",
    [
        "",
        "digit",
        "tfds",
        "tfds:",
        "folder",
        "folder:",
        "digits:",
        "digits:x",
        ":mnist",
        "clips",
        "text:",
    ],
)
def test_unknown_data_set(make_config, name):
    choices = (
        "clips:NAME, digits, folder:PATH, noisy_digits, rows:PATH, stdlib_syntax, stdlib_text, "
        "text:NAME+..., tfds:NAME, tfds_text:NAME"
    )
    message = re.escape(f"data.source {name!r} is unknown: choose one of {choices}")
    with pytest.raises(ValueError, match=message):
        data.load(make_config(source=name), "train", batch_size=2, seed=0, train=True)
    with pytest.raises(ValueError, match=message):
        data.info(make_config(source=name))


def test_unknown_split(make_config):
    with pytest.raises(ValueError, match="split 'test' is unknown: choose one of"):
        data.load(make_config(), "test", batch_size=2, seed=0, train=False)


def test_hosts_and_batch_size_are_checked_first(make_config):
    with pytest.raises(ValueError, match="batch_size 7 does not divide by 2 hosts: use 6 or 8"):
        data.load(make_config(), "train", batch_size=7, seed=0, train=True, host_count=2)


def test_import_is_light():
    code = (
        "import data, sys; print({'tensorflow', 'tensorflow_datasets', 'sklearn'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_stream_is_for_text_alone(make_config):
    config = make_config(source="stdlib_text")
    assert data.stream(config, "validation") is stdlib_text.read("validation")
    with pytest.raises(ValueError, match=r"data\.source 'digits' is no text"):
        data.stream(make_config(), "train")


class TestSomeExamples:
    def test_they_are_evenly_spaced_and_training_sees_all(self, make_config):
        config = make_config(source="digits", eval_examples=7)
        few = data.load(config, "validation", batch_size=7, seed=0, train=False)
        found = next(iter(few))
        config.eval_examples = 0
        count = data.info(config).examples["validation"]
        everything = data.load(config, "validation", batch_size=count, seed=0, train=False)
        expected = next(iter(everything))
        chosen = [i * count // 7 for i in range(7)]
        np.testing.assert_array_equal(found["image"], expected["image"][chosen])
        np.testing.assert_array_equal(found["label"], expected["label"][chosen])
        for batches in (few, everything):
            batches.close()

    def test_they_are_counted(self, make_config):
        every = data.info(make_config(source="digits")).examples
        few = data.info(make_config(source="digits", eval_examples=7)).examples
        assert few == every | {"validation": 7}
        enough = data.info(make_config(source="digits", eval_examples=10**6)).examples
        assert enough == every

    def test_they_keep_their_names(self):
        class Files:
            def __len__(self):
                return 11

            def name(self, stored):
                return f"file {stored}"

        few = dataset.Few(Files(), 3)
        assert [dataset.name(few, dataset.stored(few, i, 0)) for i in range(len(few))] == [
            "file 0",
            "file 3",
            "file 7",
        ]

    def test_less_than_none_is_refused(self, make_config):
        with pytest.raises(ValueError, match=r"data\.eval_examples must be at least 0 .*got -1"):
            data.info(make_config(source="digits", eval_examples=-1))

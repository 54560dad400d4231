import re
import subprocess
import sys

import pytest

import data
from data.text import stdlib_text


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
        "clips:NAME, digits, folder:PATH, noisy_digits, pairs_rows:PATH, rows:PATH, "
        "scenes, stdlib_docstrings:FORM, stdlib_syntax, stdlib_text, text:NAME+..., tfds:NAME, "
        "tfds_pairs:NAME+..., tfds_text:NAME"
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
    with pytest.raises(ValueError, match="batch_size 7 is not divisible by 2 hosts: use 6 or 8"):
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
    with pytest.raises(ValueError, match=r"data\.source 'digits' is not a text source"):
        data.stream(make_config(), "train")

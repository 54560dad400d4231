"""ImageNet's official tars in small: made here, prepared by TFDS itself, read and trained on.

The tars have the true form: one tar of a tar per synset, and one of the validation pictures, whose
classes TFDS knows from a list of its own. Among the pictures are a grey, a CMYK and a progressive
one, one cut short and one that is no picture.
"""

import importlib.util
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data.prepare import catalogue
from data.prepare.__main__ import main
from perceiver.media.labels import imagenet, imagenet_synsets

ROOT = Path(data.__file__).parents[1]
_CMYK = "n01739381_1309.JPEG"  # one of those that TFDS converts, by this name
_CUT, _TEXT = "n01440764_2.JPEG", "n02077923_3.JPEG"


def jpeg(rng, mode="RGB", **options):
    """A JPEG file of random size and smooth content."""
    size = tuple(int(side) for side in rng.integers(29, 61, 2))
    coarse = Image.frombytes(mode, (5, 3), rng.bytes(15 * len(mode)))
    file = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", **options)
    return file.getvalue()


def tar(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def write_tars(folder):
    rng = np.random.default_rng(0)
    train = {
        "n01440764": {f"n01440764_{i}.JPEG": jpeg(rng) for i in range(5)},
        "n01739381": {_CMYK: jpeg(rng, "CMYK"), "n01739381_7.JPEG": jpeg(rng, "L")},
        "n02077923": {
            "n02077923_1.JPEG": jpeg(rng, progressive=True),
            "n02077923_2.JPEG": jpeg(rng),
            _TEXT: b"404: no such picture\n" * 9,
        },
    }
    train["n01440764"][_CUT] = jpeg(rng)[:300]
    validation = {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg(rng) for i in range(1, 8)}
    validation["ILSVRC2012_val_00000003.JPEG"] = jpeg(rng)[:300]
    synsets = {f"{synset}.tar": tar(files) for synset, files in train.items()}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar(synsets))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar(validation))


def run(*words):
    """Runs `python -m`, in a process of its own: TensorFlow never enters this one."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow, which prepares the data, has no build for this platform")
    folder = tmp_path_factory.mktemp("imagenet")
    write_tars(folder)
    done = run("data.prepare", "imagenet", f"--manual_dir={folder}", f"--data_dir={folder}")
    assert f"wrote {folder / 'imagenet2012' / '5.1.0'}" in done.stdout
    assert "official file has 147,897,477,120" in done.stderr
    return folder


@pytest.fixture
def config(prepared, make_config):
    return make_config(
        source="tfds:imagenet2012", data_dir=str(prepared), image_size=16, channels=3
    )


def test_facts_come_from_the_data(config):
    info = data.info(config)
    assert info.examples == {"train": 10, "validation": 7}
    assert info.labels == imagenet()  # words, though the files have synsets
    assert info.crop_fraction == 0.875


def test_evaluation_names_the_broken_picture(config):
    batches = data.load(config, "validation", batch_size=7, seed=0, train=False)
    batch = next(batches)
    assert batches.broken.keys() == set(np.flatnonzero(~batch["mask"]))
    (reason,) = batches.broken.values()
    assert reason.startswith("ILSVRC2012_val_00000003.JPEG: ")
    batches.close()


def test_validation_labels_are_those_of_the_file_names(config):
    import tensorflow_datasets as tfds

    path = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
    synsets = path.read_text().splitlines()
    source = data.DATASETS["tfds"].dataset(config, "validation", seed=0, train=False).source
    numbers = {i: int(source.name(i)[-13:-5]) for i in range(7)}
    assert sorted(numbers.values()) == [1, 2, 3, 4, 5, 6, 7]
    for index, number in numbers.items():
        label = source.example(index, 0)["label"]
        assert imagenet_synsets()[label] == synsets[number - 1]


def test_training_crops_all_kinds_and_names_the_broken(config):
    config.update(augment="inception", rand_augment_layers=4)
    batches = data.load(config, "train", batch_size=10, seed=0, train=True)
    for _ in range(3):
        batch = next(batches)
        assert batch["mask"].sum() == 8
        assert np.isfinite(batch["image"]).all()
        # Grey, CMYK and progressive ones are among those that can be read.
        readable = [imagenet_synsets()[label] for label in batch["label"][batch["mask"]]]
        assert sorted(readable) == 4 * ["n01440764"] + 2 * ["n01739381"] + 2 * ["n02077923"]
    assert {reason.partition(":")[0] for reason in batches.broken.values()} == {_CUT, _TEXT}
    batches.close()
    assert len(batches.broken) == 2


def test_the_cmyk_picture_was_converted(config):
    source = data.DATASETS["tfds"].dataset(config, "train", seed=0, train=False).source
    (index,) = (i for i in range(len(source)) if source.name(i) == _CMYK)
    assert Image.open(io.BytesIO(source.example(index, 0)["image"])).mode == "RGB"


def test_too_many_broken_ones_end_the_run(config):
    config.broken_limit = 1
    batches = data.load(config, "train", batch_size=10, seed=0, train=True)
    with pytest.raises(ValueError, match=r"2 examples cannot be read.*broken_limit is 1"):
        next(batches)
    batches.close()


@pytest.mark.slow  # a minute; the tests above see what is read, tests/train what is trained
def test_trains_and_evaluates_end_to_end(prepared, tmp_path):
    words = [
        "--config=configs/imagenet.py:fourier,smoke",
        "--config.data.source=tfds:imagenet2012",
        f"--config.data.data_dir={prepared}",
        "--config.model.classes=1000",
        "--config.data.augment=inception",
        f"--workdir={tmp_path / 'run'}",
    ]
    said = run("train", *words)
    assert _CUT in said.stdout + said.stderr or _TEXT in said.stdout + said.stderr
    evaluated = run("train.evaluate", str(tmp_path / "run"))
    assert "ILSVRC2012_val_00000003.JPEG" in evaluated.stdout + evaluated.stderr


@pytest.mark.slow
def test_again_says_so(prepared):
    done = run("data.prepare", "imagenet", f"--manual_dir={prepared}", f"--data_dir={prepared}")
    assert "already exists" in done.stdout
    done = run("data.prepare", "tfds", "imagenet2012", f"--data_dir={prepared}")
    assert "already exists" in done.stdout


def test_missing_tars_are_named(tmp_path):
    both = "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar: .*image-net.org/download-images"
    words = ["imagenet", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}"]
    with pytest.raises(SystemExit, match=f"lacks {both}"):
        main(words)
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"lacks ILSVRC2012_img_val\.tar: training needs both"):
        main(words)
    with pytest.raises(FileNotFoundError):
        catalogue.prepare_imagenet(tmp_path, tmp_path)


def test_without_tensorflow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"needs TensorFlow.* not installed.*\.\[prepare\]"):
        main(["tfds", "mnist", f"--data_dir={tmp_path}"])


def test_unknown_name_suggests_one(tmp_path):
    with pytest.raises(SystemExit, match="no data set 'mnisst'; did you mean mnist"):
        main(["tfds", "mnisst", f"--data_dir={tmp_path}"])


def test_a_full_disk_is_told_before(tmp_path):
    with pytest.raises(OSError, match=r"GB free, but 1000000000\.0 GB are needed"):
        catalogue._check_disk(tmp_path / "not" / "yet", 10**18)

"""Reads a tiny data set that TFDS itself serialises and describes, by the path that real ones take.

`tfds.testing.mock_data` serves decoded pictures alone without TensorFlow: with encoded ones, which
this project reads, it calls TensorFlow's encoder. So the files are written here.
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

import data

_SIZES = {"train": 11, "test": 7}
_LABELS = ("ant", "bee", "cat")


def png(pixels):
    """Returns pixels [H, W, C] or [H, W] as an open PNG file, which TFDS stores as it is."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


def plain(number):
    """An example of one colour: its number survives every crop."""
    return {"image": png(np.full((13, 17, 3), number, np.uint8)), "label": number % 3}


def write(folder, *, name="tiny_pictures", features=None, example=plain, sizes=_SIZES):
    """Writes `name` under folder, as array_record files with TFDS's metadata."""
    features = features or tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=_LABELS),
        }
    )
    folder = folder / name / "1.0.0"
    folder.mkdir(parents=True)
    infos = []
    for split, size in sizes.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
        )
        path = template.sharded_filepath(shard_index=0, num_shards=1)
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for number in range(size):
            writer.write(features.serialize_example(features.encode_example(example(number))))
        writer.close()
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[size], num_bytes=0, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, check_data=False
    )


@pytest.fixture
def tiny(tmp_path, make_config):
    write(tmp_path)
    return lambda **fields: make_config(
        source="tfds:tiny_pictures", data_dir=str(tmp_path), image_size=5, channels=3, **fields
    )


def numbers(batch):
    """The numbers of the pictures of a batch, from their normalised colour."""
    red = batch["image"][:, 0, 0, 0] * (255 * 0.229) + 255 * 0.485
    return np.round(red).astype(int)


def test_evaluation_reads_every_picture(tiny):
    batches = data.load(tiny(), "validation", batch_size=4, seed=0, train=False)
    one_pass = list(batches)
    batches.close()
    seen = np.concatenate([numbers(batch)[batch["mask"]] for batch in one_pass])
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in one_pass])
    np.testing.assert_array_equal(seen, np.arange(7))
    np.testing.assert_array_equal(labels, np.arange(7) % 3)
    assert one_pass[0]["image"].shape == (4, 5, 5, 3)
    assert one_pass[0]["image"].dtype == np.float32
    assert one_pass[0]["label"].dtype == np.int32


def test_training_augments_and_covers(tiny):
    batches = data.load(tiny(augment="inception"), "train", batch_size=11, seed=0, train=True)
    assert sorted(numbers(next(batches))) == list(range(11))
    batches.close()


def test_workers_read_the_same(tiny):
    threads, processes = (
        data.load(tiny(workers=workers), "train", batch_size=4, seed=0, train=True)
        for workers in (0, 1)
    )
    for _ in range(3):
        np.testing.assert_array_equal(next(threads)["image"], next(processes)["image"])
    threads.close()
    processes.close()


def test_grey_is_possible(tiny):
    config = tiny()
    config.channels = 1
    batches = data.load(config, "validation", batch_size=7, seed=0, train=False)
    image = next(batches)["image"]
    batches.close()
    assert image.shape == (7, 5, 5, 1)
    np.testing.assert_allclose(image[:, 0, 0, 0], np.arange(7) / 127.5 - 1, atol=1e-6)


def test_info(tiny):
    info = data.info(tiny())
    assert info.name == "tfds:tiny_pictures"
    assert info.examples == {"train": 11, "validation": 7}
    assert info.labels == _LABELS
    assert info.image_shape == (5, 5, 3)
    assert info.mean == (0.485, 0.456, 0.406)
    assert info.crop_fraction == 0.875


def test_pictures_of_fixed_size_are_evaluated_whole(tmp_path, make_config):
    def framed(i):  # a white frame of one pixel, which a central crop would lose
        pixels = np.zeros((16, 16), np.uint8)
        pixels[[0, -1]] = pixels[:, [0, -1]] = 255
        return {"image": png(pixels), "label": 0}

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(16, 16, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=1),
        }
    )
    write(tmp_path, features=features, example=framed)
    config = make_config(source="tfds:tiny_pictures", data_dir=str(tmp_path), image_size=16)
    assert data.info(config).crop_fraction == 1
    batches = data.load(config, "validation", batch_size=1, seed=0, train=False)
    image = next(batches)["image"]
    batches.close()
    np.testing.assert_array_equal(image[0, 0], 1)
    np.testing.assert_array_equal(image[0, 1:-1, 1:-1], -1)


def test_splits_can_be_slices(tiny):
    config = tiny(train_split="train[:8]", eval_split="train[8:]")
    assert data.info(config).examples == {"train": 8, "validation": 3}
    batches = data.load(config, "validation", batch_size=3, seed=0, train=False)
    assert numbers(next(batches)).tolist() == [8, 9, 10]
    batches.close()


def test_tensorflow_is_never_imported(tiny):
    """In a process of its own: it may be installed, and another test may have imported it."""
    code = (
        "import json, sys, ml_collections, data\n"
        "config = ml_collections.ConfigDict(json.loads(sys.argv[1]))\n"
        "batches = data.load(config, 'validation', batch_size=7, seed=0, train=False)\n"
        "next(batches)\n"
        "batches.close()\n"
        "assert 'tensorflow' not in sys.modules"
    )
    words = [sys.executable, "-c", code, tiny().to_json()]
    subprocess.run(words, check=True, cwd=Path(data.__file__).parents[1])


def test_missing_split_lists_the_others(tmp_path, make_config, tiny):
    with pytest.raises(ValueError, match=r"no split dev, only \['train', 'test'\]: set data\.eval"):
        data.info(tiny(eval_split="dev"))
    write(tmp_path, name="one_split", sizes={"train": 5})
    config = make_config(source="tfds:one_split", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r'set data\.eval_split, for example to "train\[90%:\]"'):
        data.load(config, "validation", batch_size=2, seed=0, train=False)


def test_unprepared_names_the_command(tmp_path, make_config):
    config = make_config(source="tfds:mnist", data_dir=str(tmp_path))
    command = rf"python -m data\.prepare tfds mnist --data_dir={tmp_path}` \(extra `prepare`"
    with pytest.raises(FileNotFoundError, match=command):
        data.load(config, "train", batch_size=2, seed=0, train=True)
    config.source = "tfds:imagenet2012"
    with pytest.raises(FileNotFoundError, match=r"data\.prepare imagenet --manual_dir=TARS"):
        data.info(config)
    config.data_dir = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.info(config)


def test_unknown_name_suggests_one(tmp_path, make_config):
    config = make_config(source="tfds:mnisst", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"TFDS has no data set 'mnisst'; did you mean mnist"):
        data.info(config)


def test_other_file_format(tiny):
    config = tiny()
    (path,) = Path(config.data_dir).glob("*/*/dataset_info.json")
    path.write_text(path.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(
        ValueError, match=r"format 'tfrecord', which does not allow random access: run"
    ):
        data.info(config)


def test_other_task(tmp_path, make_config):
    features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
    write(tmp_path, features=features, example=lambda i: {"text": "a"})
    config = make_config(source="tfds:tiny_pictures", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"no Image feature 'image', only .*'text'"):
        data.info(config)

"""Pictures in class folders: layouts, the fixed split, and what can be wrong with a folder."""

import numpy as np
import pytest
from absl import logging
from PIL import Image

import data


def save(path, number=0):
    """A picture of one colour: its number survives every crop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (17, 13), (number, number, number)).save(path)


@pytest.fixture
def split(tmp_path):
    """Two classes in two splits, in all formats."""
    for number, name in enumerate(("a.png", "b.BMP", "c.webp")):
        save(tmp_path / "train" / "cat" / name, 10 + number)
    for number, name in enumerate(("x.png", "y.bmp")):
        save(tmp_path / "train" / "ant" / name, 20 + number)
    save(tmp_path / "val" / "cat" / "z.png", 30)
    save(tmp_path / "val" / "ant" / "z.jpeg", 40)
    return tmp_path


@pytest.fixture
def config(tmp_path, make_config):
    return make_config(source=f"folder:{tmp_path}", image_size=5, channels=3)


def read(config, split):
    """number -> label of one pass over a split."""
    size = data.info(config).examples[split]
    batches = data.load(config, split, batch_size=size, seed=0, train=False)
    batch = next(batches)
    batches.close()
    assert batch["mask"].all()
    red = batch["image"][:, 0, 0, 0] * (255 * 0.229) + 255 * 0.485
    return dict(zip(np.round(red).astype(int).tolist(), batch["label"].tolist(), strict=True))


def test_splits_as_folders(split, config):
    info = data.info(config)
    assert info.labels == ("ant", "cat")
    assert info.examples == {"train": 5, "validation": 2}
    assert info.image_shape == (5, 5, 3)
    assert info.crop_fraction == 0.875
    assert read(config, "train") == {20: 0, 21: 0, 10: 1, 11: 1, 12: 1}
    assert read(config, "validation") == {40: 0, 30: 1}


def test_other_names_of_splits(split, config):
    (split / "val").rename(split / "holdout:2")
    config.eval_split = "holdout:2"
    assert data.info(config).examples == {"train": 5, "validation": 2}
    config.eval_split = "none"
    with pytest.raises(ValueError, match=r"data\.eval_split 'none': .* has no such folder"):
        data.info(config)


@pytest.mark.parametrize("below", ["", "train"])
def test_one_set_of_classes_is_split_by_every_tenth_name(tmp_path, config, below):
    for label, name in enumerate(("bee", "ant")):
        for number in range(23):
            save(tmp_path / below / name / f"{number:02d}.png", 100 * label + number)
    assert data.info(config).labels == ("ant", "bee")
    held_out = {109: 0, 119: 0, 9: 1, 19: 1}
    assert read(config, "validation") == held_out
    everything = dict.fromkeys(range(23), 1) | {100 + n: 0 for n in range(23)}
    assert read(config, "train") == {n: c for n, c in everything.items() if n not in held_out}


def test_a_class_may_be_called_train(tmp_path, config):
    for name in ("train", "ship"):
        for number in range(10):
            save(tmp_path / name / f"{number}.png")
    assert data.info(config).labels == ("ship", "train")


def test_training_augments_and_workers_read_the_same(split, config):
    config.augment = "inception"
    streams = []
    for config.workers in (0, 1):
        streams.append(data.load(config, "train", batch_size=5, seed=0, train=True))
    threads, processes = streams
    for _ in range(2):
        np.testing.assert_array_equal(next(threads)["image"], next(processes)["image"])
    threads.close()
    processes.close()


def test_a_path_may_hold_colons(tmp_path, make_config):
    for number in range(10):
        save(tmp_path / "my:pictures" / "a" / f"{number}.png")
    config = make_config(source=f"folder:{tmp_path}/my:pictures", channels=3)
    assert data.info(config).examples == {"train": 9, "validation": 1}


def test_strays_are_left_out_and_counted(split, config, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    data.info(config)
    assert said == []
    (split / "train" / "readme.txt").touch()
    (split / "train" / ".cache").mkdir()
    (split / "train" / "cat" / ".DS_Store").touch()
    (split / "train" / "cat" / "._a.png").touch()
    (split / "train" / "cat" / "more").mkdir()
    assert data.info(config).examples == {"train": 5, "validation": 2}
    (message,) = said
    assert "ignored 5 files or folders that are not images of a class" in message
    assert "train/.cache" in message


def test_unreadable_pictures_are_named(split, config):
    (split / "val" / "ant" / "z.jpeg").write_bytes(b"no picture")
    (split / "val" / "cat" / "z.png").unlink()
    (split / "val" / "cat" / "z.png").symlink_to(split / "gone.png")
    save(split / "val" / "cat" / "ok.png")
    batches = data.load(config, "validation", batch_size=3, seed=0, train=False)
    assert next(batches)["mask"].tolist() == [False, True, False]
    batches.close()
    assert batches.broken[0].startswith("val/ant/z.jpeg: cannot decode")
    assert batches.broken[2].startswith(f"val/cat/z.png: cannot read {split}/val/cat/z.png")


def test_no_such_folder(tmp_path, make_config):
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist"):
        data.info(make_config(source=f"folder:{tmp_path}/nowhere"))


def test_no_class_folders(tmp_path, config):
    save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match="has no subfolders: it must contain one folder of images per class"
    ):
        data.info(config)


def test_empty_class(split, config):
    (split / "train" / "dog").mkdir()
    with pytest.raises(ValueError, match="classes without images: dog; remove"):
        data.info(config)


def test_class_of_validation_alone(split, config):
    save(split / "val" / "dog" / "a.png")
    with pytest.raises(
        ValueError, match="val has classes that are missing from the training folder: dog"
    ):
        data.load(config, "train", batch_size=2, seed=0, train=True)


def test_too_few_pictures_to_hold_any_out(tmp_path, config):
    save(tmp_path / "ant" / "a.png")
    with pytest.raises(ValueError, match="no validation images: add some to a folder"):
        data.info(config)


def pictures(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (8, 8)).save(root / folder / f"{i}.png")


def test_names_of_a_class_may_be_composed_or_not(tmp_path, make_config):
    pictures(tmp_path, "train/caf\u00e9", "train/x", "val/cafe\u0301", "val/x")
    facts = data.info(make_config(source=f"folder:{tmp_path}"))
    assert facts.labels == ("caf\u00e9", "x")
    assert facts.examples == {"train": 24, "validation": 24}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("Training/x", "Training/y", "Testing/x"), "Testing, Training hold folders.*train_split"),
        (("archive/train/x", "archive/val/x"), "archive hold folders.*classes lie deeper"),
        (("train", "test1"), "test1, train hold images, not one folder per class"),
        (("Train", "Val"), "Train, Val hold images"),
    ],
)
def test_another_layout_is_named(tmp_path, make_config, folders, message):
    pictures(tmp_path, *folders)
    with pytest.raises(ValueError, match=message):
        data.info(make_config(source=f"folder:{tmp_path}"))

"""The embedded set of glyphs, prepared in small and read by the path that real data takes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import data
from data.prepare import writing
from data.prepare.__main__ import main
from data.prepare.synthetic import glyph_pictures, glyphs
from perceiver.media.images import central_box

_CLASSES = ("A", "two", "lower_a", "Gamma", "ampersand")
_COUNTS = {"train_per_class": 13, "test_per_class": 5}


def recipe(**fields):
    return glyphs.recipe(**({"seed": 3, "classes": _CLASSES} | _COUNTS | fields))


def read(folder, split):
    """All (file name, label, JPEG bytes) of a split, in the order of the files."""
    import tensorflow_datasets as tfds

    builder = tfds.builder("glyphs", data_dir=folder)
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    return [(x["file_name"].decode(), x["label"], x["image"]) for x in source]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    written, existed = writing.write(recipe(), folder)
    assert not existed
    assert sorted(path.name for path in folder.iterdir()) == ["glyphs"]
    assert written == folder / "glyphs" / "1.0.0"
    return folder


def test_splits_share_no_font_and_hold_all_classes(small):
    fonts = {}
    for split, count in (("train", 13), ("test", 5)):
        examples = read(small, split)
        names = [name for name, _, _ in examples]
        assert len(set(names)) == len(names) == count * len(_CLASSES)
        for name, label, _ in examples:
            assert name.startswith(f"{_CLASSES[label]}_")
        assert np.bincount([label for _, label, _ in examples]).tolist() == [count] * len(_CLASSES)
        fonts[split] = {name.rsplit("_", 2)[1] for name in names}
    assert fonts["train"] == set(glyphs.FACES["train"])
    assert fonts["test"] == set(glyphs.FACES["test"])
    assert not fonts["train"] & fonts["test"]
    assert not any("Serif" in font for font in fonts["train"])


def test_pictures_are_photograph_sized_jpegs(small):
    sizes = set()
    for _, _, encoded in read(small, "train"):
        assert encoded[:3] == b"\xff\xd8\xff"
        picture = glyph_pictures.Image.open(glyph_pictures.io.BytesIO(encoded))
        assert picture.format == "JPEG"
        assert picture.mode == "RGB"
        sizes.add(picture.size)
    assert len(sizes) > 40
    assert all(256 <= side <= 340 for size in sizes for side in size)


def test_same_seed_same_examples(small, tmp_path):
    writing.write(recipe(), tmp_path / "again")
    writing.write(recipe(seed=4), tmp_path / "other")
    for split in ("train", "test"):
        first = read(small, split)
        assert read(tmp_path / "again", split) == first
        assert {image for *_, image in read(tmp_path / "other", split)}.isdisjoint(
            image for *_, image in first
        )


def test_opens_through_load(small, make_config):
    config = make_config(
        source="tfds:glyphs", data_dir=str(small), image_size=19, channels=3, augment="inception"
    )
    info = data.info(config)
    assert info.labels == _CLASSES
    assert info.examples == {"train": 65, "validation": 25}
    assert info.crop_fraction == 0.875
    for split, train in (("train", True), ("validation", False)):
        batches = data.load(config, split, batch_size=25, seed=0, train=train)
        batch = next(batches)
        batches.close()
        assert batch["image"].shape == (25, 19, 19, 3)
        assert set(batch["label"].tolist()) == set(range(5))


def test_again_says_so_and_other_settings_are_refused(small):
    assert writing.write(recipe(), small)[1]
    with pytest.raises(ValueError, match=r"'train': 13.* there, .*'train': 14.*another --data_dir"):
        writing.write(recipe(train_per_class=14), small)


def test_an_interrupted_preparation_reads_as_none(tmp_path, make_config, monkeypatch):
    drawn = glyph_pictures.draw
    calls = iter(range(100))

    def interrupted(*args):
        if next(calls) == 9:
            raise KeyboardInterrupt
        return drawn(*args)

    monkeypatch.setattr(glyph_pictures, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writing.write(recipe(), tmp_path)
    monkeypatch.undo()
    # A killed one leaves its folder too.
    leftover = tmp_path / "glyphs" / "incomplete.ABC123_1.0.0"
    leftover.mkdir(parents=True, exist_ok=True)
    config = make_config(source="tfds:glyphs", data_dir=str(tmp_path), channels=3)
    with pytest.raises(FileNotFoundError, match=r"python -m data\.prepare glyphs"):
        data.info(config)
    assert not writing.write(recipe(), tmp_path)[1]
    assert not leftover.exists()
    assert data.info(config).examples == {"train": 65, "validation": 25}


def test_every_class_has_a_glyph_of_its_own_in_every_face():
    assert len(glyphs.CLASSES) == len(set(glyphs.CLASSES.values())) >= 60
    glyphs._check_fonts(tuple(glyphs.CLASSES))
    file = str(glyphs._font_file("STIXGeneralItalic"))
    assert not glyph_pictures.has_glyph("∞", file)  # which this face lacks
    assert not glyph_pictures.has_glyph(" ", file)


def test_ink_stands_out_and_lies_within_the_crop_of_evaluation(monkeypatch):
    file = str(glyphs._font_file("DejaVuSans-Bold"))
    monkeypatch.setattr(glyph_pictures, "_PATTERNS", (glyph_pictures._flat,))
    extents = []
    for number in range(40):
        picture = glyph_pictures.draw("H", file, np.random.default_rng(number))
        grey = np.asarray(picture.convert("L"), int)
        paper = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
        rows, columns = np.nonzero(abs(grey - paper) > glyph_pictures.MIN_CONTRAST / 2)
        assert abs(grey - paper).max() >= glyph_pictures.MIN_CONTRAST - 8
        left, top, right, bottom = central_box(picture, 224 / 256)
        assert left - 1 <= columns.min()
        assert columns.max() <= right
        assert top - 1 <= rows.min()
        assert rows.max() <= bottom
        extents.append(max(np.ptp(rows), np.ptp(columns)) / min(grey.shape))
    assert 0.35 < min(extents) < 0.5
    assert 0.7 < max(extents) <= 224 / 256


def test_command_line(tmp_path, capsys):
    arguments = ["glyphs", f"--data_dir={tmp_path}", "--train_per_class=1", "--test_per_class=1"]
    main(arguments)
    assert f"wrote {tmp_path / 'glyphs' / '1.0.0'}" in capsys.readouterr().out
    assert len(read(tmp_path, "train")) == len(read(tmp_path, "test")) == len(glyphs.CLASSES)
    main(arguments)
    assert "already exists" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--train_per_class must be at least 1, got 0"):
        main(["glyphs", f"--data_dir={tmp_path}", "--train_per_class=0"])


def test_needs_no_tensorflow(tmp_path):
    """Where it is installed, too: a process of its own, as other tests may have imported it."""
    code = (
        "import sys; from data.prepare.__main__ import main; main(sys.argv[1:]);"
        "assert 'tensorflow' not in sys.modules"
    )
    words = ["glyphs", f"--data_dir={tmp_path}", "--train_per_class=1", "--test_per_class=1"]
    root = Path(data.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, *words], check=True, cwd=root)

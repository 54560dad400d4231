"""Prepared clips, from records to batches: frames and samples that say which they are."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data.clips import class_balance, clip_labels, clip_records, clips
from data.clips.clip_records import Clip

_CLASSES = ("dog", "cat", "rain", "bell")
_FRAMES, _SAMPLES = 11, 11 * 1920
_T, _S, _SIZE = 5, 7_681, 13


def jpeg(value, size=(19, 17)):
    file = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(file, "JPEG", quality=100)
    return file.getvalue()


_GREYS = [jpeg(10 + 9 * n) for n in range(_FRAMES)]


def numbers(video):  # uint8 [..., H, W, 3] -> the frames' numbers
    flat = np.ptp(video.reshape(*video.shape[:-3], -1), axis=-1)
    assert not flat.any()
    return np.round((video[..., 0, 0, 0].astype(float) - 10) / 9).astype(int)


def clip(name, labels, frames=_GREYS, samples=_SAMPLES):
    return Clip(name, frames, np.arange(samples).astype(np.int16), np.array(labels, np.int64))


# Labels of the clips of both training splits: class 3 is rare.
_BALANCED = [[0], [1], [0, 3]]
_UNBALANCED = [[0], [0, 1], [], [1]]


def write(data_dir, splits, name="tiny"):
    """Writes splits of clips as they are prepared."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    home = Path(data_dir) / name / "1.0.0"
    home.mkdir(parents=True, exist_ok=True)
    features = clip_records.features(_CLASSES)
    codec = clip_records.ClipCodec(features)
    infos = []
    for split, examples in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=home, dataset_name=name, split=split, filetype_suffix="array_record"
        )
        parts = [examples[:2], examples[2:]]
        for number, part in enumerate(parts):
            path = template.sharded_filepath(shard_index=number, num_shards=len(parts))
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for each in part:
                writer.write(codec.encode(each))
            writer.close()
        lengths = [len(part) for part in parts]
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=lengths, num_bytes=0, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=home, features=features, split_infos=infos, check_data=False
    )
    return home


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    splits = {
        "balanced_train": [clip(f"b{i}", labels) for i, labels in enumerate(_BALANCED)],
        "unbalanced_train": [clip(f"u{i}", labels) for i, labels in enumerate(_UNBALANCED)],
        "eval": [
            clip("whole", [2]),
            clip("silent", [0, 2], samples=0),
            clip("dark", [1], frames=[]),
            clip("short", [], frames=_GREYS[:3], samples=3001),
            clip("bad", [1], frames=[*_GREYS[:4], _GREYS[4][:300], *_GREYS[5:]]),
        ],
    }
    write(folder, splits)
    return folder


@pytest.fixture
def make(prepared, make_config):
    """Returns a function that loads a split, and closes it after the test."""
    made = []

    def make(split="train", train=True, batch_size=7, seed=3, workers=0, **fields):
        sizes = {"image_size": _SIZE, "frames": _T, "audio_samples": _S}
        where = {"source": "clips:tiny", "data_dir": str(prepared), "workers": workers}
        config = make_config(**(where | sizes | fields))
        made.append(data.load(config, split, batch_size=batch_size, seed=seed, train=train))
        return made[-1]

    yield make
    for batches in made:
        batches.close()


def test_training(make):
    batches = make()
    assert batches.num_examples == 7
    starts = []
    for batch in itertools.islice(batches, 20):
        assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
            "video": ((7, _T, _SIZE, _SIZE, 3), np.uint8),
            "audio": ((7, _S), np.float32),
            "labels": ((7, 4), bool),
            "mask": ((7,), bool),
        }
        assert batch["mask"].all()
        rows = {tuple(np.flatnonzero(row)) for row in batch["labels"]}
        assert rows == {tuple(each) for each in _BALANCED + _UNBALANCED}
        seen = numbers(batch["video"])
        np.testing.assert_array_equal(seen - seen[:, :1], np.arange(_T) + 0 * seen)
        np.testing.assert_array_equal(batch["audio"][:, 0] * 2**15, seen[:, 0] * 1920)
        starts.extend(seen[:, 0])
    assert set(starts) == set(range(_FRAMES - _T + 1))


def test_evaluation(make):
    batches = make("validation", train=False, batch_size=3)
    first, second = batches
    assert first["video"].shape == (3, 3, _T, _SIZE, _SIZE, 3)
    assert first["audio"].shape == (3, 3, _S)
    assert first["labels"].shape == (3, 4)
    assert first["mask"].tolist() == [True] * 3
    spread = np.array([0, 3, 6])[:, None] + np.arange(_T)
    whole, silent, dark = range(3)
    for row in (whole, silent):
        np.testing.assert_array_equal(numbers(first["video"][row]), spread)
    for row in (whole, dark):
        np.testing.assert_array_equal(first["audio"][row, :, 0] * 2**15, spread[:, 0] * 1920)
    assert not first["audio"][silent].any()
    assert not first["video"][dark].any()
    # short, bad, and a row that fills up
    assert second["mask"].tolist() == [True, False, False]
    assert numbers(second["video"][0]).tolist() == [[0, 1, 2, 2, 2]] * 3
    assert not second["audio"][0, :, 3001:].any()
    assert batches.broken == {
        4: "bad: frame 4, a JPEG of 300 bytes, cannot be decoded",
    }


def test_evaluation_draws_nothing(make):
    one, other = (list(make("validation", False, 5, seed, augment="inception")) for seed in (1, 2))
    for ours, theirs in zip(one, other, strict=True):
        for field in ours:
            np.testing.assert_array_equal(ours[field], theirs[field])


@pytest.mark.parametrize("field", ["video", "audio"])
def test_a_modality_that_is_off_is_not_read(make, field):
    batch = next(make("validation", train=False, batch_size=5, **{field: False}))
    assert batch.keys() == {"video", "audio", "labels", "mask"} - {field}
    # Without its picture the broken clip is a good one.
    assert batch["mask"][4] == (field == "video")


_ALL = {"augment": "inception", "colour": 0.4, "time_jitter": 101, "crop_area": (0.3, 1.0)}


@pytest.mark.parametrize(("fields", "workers"), [(_ALL, 0), (_ALL | {"class_balanced": True}, 2)])
def test_a_resumed_run_continues_exactly(make, fields, workers):
    first, second = make(batch_size=3, **fields), make(batch_size=3, workers=workers, **fields)
    states = []
    whole = []
    for batch in itertools.islice(first, 7):
        states.append(first.state())
        whole.append(batch)
    second.restore(json.loads(json.dumps(states[2])))
    for expected in whole[3:]:
        batch = next(second)
        for field in expected:
            np.testing.assert_array_equal(batch[field], expected[field])
    # Another epoch shows other windows.
    assert len({batch["audio"].tobytes() for batch in whole}) == 7


def test_seeds_differ(make):
    one, other = (next(make(seed=seed, **_ALL)) for seed in (1, 2))
    assert (one["video"] != other["video"]).any()
    assert (one["audio"] != other["audio"]).any()


def test_class_balance_draws_the_rare_class_as_often_as_it_should(make, prepared):
    kept = prepared / "tiny" / "1.0.0" / "labels-balanced_train.npz"
    kept.unlink(missing_ok=True)
    # Of 7 clips: class 0 in 4, class 1 in 3, class 3 in 1; one without labels.
    weights = np.array([1 / 4, 1 / 3, 1, 1 / 4, 1 / 3, 1 / 4, 1 / 3])
    expected = 7 * weights[2] / weights.sum()
    batches = make(class_balanced=True, video=False)
    assert kept.exists()
    counts = [batch["labels"][:, 3].sum() for batch in itertools.islice(batches, 200)]
    assert set(counts) == {int(expected), int(expected) + 1}
    assert abs(np.mean(counts) - expected) < 5 * 0.5 / np.sqrt(200)
    again = make(class_balanced=True, video=False)  # by the labels that were kept
    assert [batch["labels"][:, 3].sum() for batch in itertools.islice(again, 9)] == counts[:9]


def test_kept_labels_of_other_records_are_read_again(tmp_path, make_config):
    fields = {"source": "clips:tiny", "data_dir": str(tmp_path), "class_balanced": True}
    config = make_config(train_split="balanced_train", **fields)
    for labels in ([[0], [1], [1]], [[1], [0], [0]]):
        write(tmp_path, {"balanced_train": [clip("x", each) for each in labels]})
        source = clips.dataset(config, "train", seed=0, train=True).source
        np.testing.assert_allclose(source.shares, [0.5, 0.25, 0.25])


@pytest.mark.parametrize("order", ["balanced_train+unbalanced_train", "unbalanced_train+eval"])
def test_kept_labels_join_in_the_order_of_the_splits(prepared, make_config, order, monkeypatch):
    fields = {"source": "clips:tiny", "data_dir": str(prepared), "class_balanced": True}

    def source(split):
        config = make_config(train_split=split, **fields)
        return clips.dataset(config, "train", seed=0, train=True).source

    scanned = source(order.replace("+", "[:100%]+"))  # of a part nothing is kept
    source(order)
    monkeypatch.setattr(clip_labels, "_scan", None)  # from here on what is kept must do
    for split in (order, "+".join(reversed(order.split("+")))):
        balanced = source(split)
        stored = [balanced.source.clip(n).labels for n in range(len(balanced))]
        expected = class_balance.shares(class_balance.ClipLabels.of(stored), len(_CLASSES))
        np.testing.assert_array_equal(balanced.shares, expected)
    np.testing.assert_array_equal(source(order).shares, scanned.shares)


def test_splits_are_those_that_are_there(prepared, make_config):
    fields = {"source": "clips:tiny", "data_dir": str(prepared), "image_size": _SIZE}
    found = data.info(make_config(**fields))
    assert found.examples == {"train": 7, "validation": 5}
    assert found.labels == _CLASSES
    assert found.image_shape == (_SIZE, _SIZE, 3)
    assert found.mean is None
    assert found.std is None
    part = data.info(
        make_config(train_split="unbalanced_train[:3]", eval_split="eval+balanced_train", **fields)
    )
    assert part.examples == {"train": 3, "validation": 8}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_split": "train"}, r"no split train, only \[.*\]: set data\.train_split"),
        ({"video": False, "audio": False}, "set at least one of them"),
        ({"frames": 0}, r"data\.frames must be at least 1"),
        ({"eval_windows": 0}, r"data\.eval_windows must be at least 1"),
        ({"time_jitter": -1}, r"data\.time_jitter must be at least 0"),
        ({"colour": 2.0}, r"data\.colour must be in 0\.\.1"),
        ({"augment": "digits"}, r"data\.augment 'digits' does not apply to clips"),
        ({"augment": "inception", "crop_area": (0.5, 0.2)}, r"data\.crop_area"),
        ({"rand_augment_layers": 2}, r"rand_augment_layers applies to images only"),
    ],
)
def test_bad_settings(make, fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("scenes", "python -m data.prepare scenes --out"),
        ("audioset", "python -m data.prepare audioset --csv SEGMENTS.csv --clips MEDIA --out"),
        ("mine", "python -m data.prepare audioset .* --name mine`"),
    ],
)
def test_what_is_not_prepared_is_told_with_the_command(tmp_path, make_config, name, command):
    with pytest.raises(FileNotFoundError, match=f"{name}.*not prepared.*: run `{command}"):
        data.info(make_config(source=f"clips:{name}", data_dir=str(tmp_path)))


def test_pictures_are_no_clips(tmp_path, make_config):
    import tensorflow_datasets as tfds

    home = tmp_path / "pictures" / "1.0.0"
    home.mkdir(parents=True)
    template = tfds.core.ShardedFileTemplate(
        data_dir=home, dataset_name="pictures", split="eval", filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name="eval", shard_lengths=[3], num_bytes=0, filename_template=template
    )
    template.sharded_filepath(shard_index=0, num_shards=1).touch()
    tfds.folder_dataset.write_metadata(
        data_dir=home,
        features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(3, 5, 3))}),
        split_infos=[split],
        check_data=False,
    )
    with pytest.raises(
        ValueError, match="'pictures' is not a data set of clips: it has the features"
    ):
        data.info(make_config(source="clips:pictures", data_dir=str(tmp_path)))


def test_what_is_made_ahead_stays_within_memory(prepared, make_config, monkeypatch):
    monkeypatch.setattr(clips.os, "cpu_count", lambda: 16)
    base = {"source": "clips:tiny", "data_dir": str(prepared), "image_size": 224, "frames": 32}
    base |= {"audio_samples": 61_440, "eval_windows": 16}

    def threads(train, **fields):
        split = "train" if train else "validation"
        return clips.dataset(make_config(**base, **fields), split, seed=0, train=train).threads

    assert threads(True, batch_size=8) == 16
    assert 1 < threads(True, batch_size=128) < 16
    assert 1 < threads(False, eval_batch_size=8) < 4
    assert threads(False, eval_batch_size=64) == 1
    assert threads(False, eval_batch_size=64, video=False) > 4


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_what_is_read(tmp_path, make):
    large = [clip(f"c{n}", [0], samples=481_003) for n in range(17)]  # 962 kB each
    write(tmp_path, {"balanced_train": large, "eval": large[:1]})

    def resident_mb():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    batches = make(data_dir=str(tmp_path), batch_size=17)
    for _ in range(5):  # epochs
        next(batches)
    before = resident_mb()
    for _ in range(60):
        next(batches)
    assert resident_mb() - before < 50  # of 981 MB that were read

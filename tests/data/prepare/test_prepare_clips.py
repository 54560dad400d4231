"""From tables and media files to a data set that TFDS reads."""

import csv
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from data.clips import clip_labels, clip_records
from data.prepare import __main__ as command
from data.prepare.clips import beam, clips, shards
from perceiver.media import video_files

pytest.importorskip("av", reason="needs PyAV: pip install av")

IDS = ("-abcdefghij", "b_123456_78", "ccccccccccc", "ddddddddddd", "eeeeeeeeeee")
# clip, start, class; the last one has no file
TRAIN = [(IDS[0], 3, "/m/a"), (IDS[1], 0, "/m/b"), (IDS[2], 1, "/m/a,/t/c"), (IDS[4], 0, "/m/b")]
EVAL = [(IDS[3], 0, "/t/c")]


def _sound(seconds, amplitude=0.5):
    return (amplitude * np.sin(np.arange(round(seconds * 16_000)) / 5)).astype(np.float32)


def _video(seconds, shade=90, side=24):
    return np.full((round(seconds * 10), side, 32, 3), shade, np.uint8)


def _table(path, rows):
    lines = [f'{video}, {start}.000, {start + 2}.000, "{mids}"' for video, start, mids in rows]
    path.write_text("# Segments csv\n# of three\n# comments\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Tables, classes and media files."""
    root = tmp_path_factory.mktemp("source")
    below = root / "media" / "below"
    below.mkdir(parents=True)
    rates = {"frames_per_second": 10, "sample_rate": 16_000}
    video_files.write(below / f"{IDS[0]}_3.mp4", _video(2), _sound(2), **rates)
    video_files.write(below / f"{IDS[1]}.mp4", _video(2, 120), **rates)  # no audio
    video_files.write(below / f"{IDS[2]}.mp4", _video(5), _sound(5), **rates)  # cut out of it
    (below / f"{IDS[3]}_0.webm").write_bytes(b"no video at all")
    (below / "notes.txt").write_text("of no concern")
    (root / "labels.csv").write_text('index,mid,display_name\n0,/m/a,"A, a"\n1,/m/b,B\n2,/t/c,C\n')
    _table(root / "balanced_train_segments.csv", TRAIN)
    _table(root / "eval_segments.csv", [*EVAL, (IDS[1], 0, "/m/a")])
    return root


def _prepare(source, out, **options):
    lines = []
    names = ("balanced_train", "eval")
    options = {"processes": 1, "clips_per_shard": 2} | options
    report = clips.prepare(
        "tiny",
        [source / f"{name}_segments.csv" for name in names],
        source / "media",
        out,
        source / "labels.csv",
        log=lines.append,
        **options,
    )
    return report, lines


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    report, lines = _prepare(source, out)
    return out, report, lines


def _contents(folder):
    """All files, but kept labels, which hold the times of the others."""
    files = (path for path in sorted(folder.iterdir()) if path.suffix != ".npz")
    return {path.name: path.read_bytes() for path in files}


def test_counts_and_report(prepared):
    _, report, lines = prepared
    assert report.splits == {
        "balanced_train": {"ok": 2, "silent": 1, "missing": 1},
        "eval": {"broken": 1, "silent": 1},
    }
    assert "balanced_train: 3 clips of 4 segments (2 ok, 1 silent, 1 missing)" in lines[-2]
    with (report.folder / "report-balanced_train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["clip"] for row in rows] == [f"{video}_{s}.000" for video, s, _ in TRAIN]
    assert [row["status"] for row in rows] == ["ok", "silent", "ok", "missing"]
    assert [row["reason"] for row in rows] == ["", "no audio", "", "no file with this name"]
    assert not [name for name in _contents(report.folder) if name.startswith(("part", "plan"))]


def test_tfds_reads_it(prepared):
    import tensorflow_datasets as tfds

    out, *_ = prepared
    builder = tfds.core.read_only_builder.builder_from_files("tiny", data_dir=out)
    assert builder.info.features["labels"].feature.names == ["A, a", "B", "C"]
    assert {s: i.num_examples for s, i in builder.info.splits.items()} == {
        "balanced_train": 3,
        "eval": 1,
    }
    source = builder.as_data_source(
        split="balanced_train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    codec = clip_records.ClipCodec(builder.info.features)
    found = [codec.decode(source[i]) for i in range(len(source))]
    assert [clip.id for clip in found] == [f"{video}_{start}.000" for video, start, _ in TRAIN[:3]]
    assert [list(clip.labels) for clip in found] == [[0], [1], [0, 2]]
    assert [len(clip.frames) for clip in found] == [50, 50, 50]
    assert [len(clip.audio) for clip in found] == [96_000, 0, 96_000]
    decoded = builder.as_data_source(split="eval")[0]
    video = np.stack(list(decoded["video"]))
    assert video.shape == (50, 24, 32, 3)
    np.testing.assert_allclose(video.mean(), 120, atol=3)


def test_class_balance_need_not_read_the_records(prepared):
    import tensorflow_datasets as tfds

    out, *_ = prepared
    builder = tfds.core.read_only_builder.builder_from_files("tiny", data_dir=out)
    found = clip_labels.read(builder, "balanced_train+eval", clips=range(4))  # no clips to read
    assert found.flat.tolist() == [0, 1, 0, 2, 0]
    assert found.lengths.tolist() == [1, 1, 2, 1]


def test_again_is_the_same_and_nothing_to_do(prepared, source):
    out, report, _ = prepared
    again, lines = _prepare(source, out)
    assert again.existed
    assert again.splits == report.splits
    assert "already exists" in lines[0]


def test_two_processes_write_the_bytes_of_one(prepared, source, tmp_path):
    _, report, _ = prepared
    other, _ = _prepare(source, tmp_path, processes=2)
    assert _contents(other.folder) == _contents(report.folder)


def test_beam_writes_the_same_bytes(prepared, source, tmp_path):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install apache-beam")
    _, report, _ = prepared
    other, _ = _prepare(source, tmp_path, run=beam.by_beam("--runner=DirectRunner"))
    assert _contents(other.folder) == _contents(report.folder)


def test_missing_beam_is_told(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ValueError, match="pip install apache-beam"):
        _prepare(source, tmp_path, run=beam.by_beam(""))


def test_shards_that_did_not_arrive_are_an_error(source, tmp_path):
    with pytest.raises(ValueError, match=r"3 shards such as .* were not written"):
        _prepare(source, tmp_path, run=lambda jobs: iter(()))


def test_other_settings_are_an_error(prepared, source):
    out, *_ = prepared
    with pytest.raises(ValueError, match="clips_per_shard 2 there, 3 requested"):
        _prepare(source, out, clips_per_shard=3)


def test_a_killed_preparation_goes_on(prepared, source, tmp_path):
    _, whole, _ = prepared
    program = (
        "import time; from data.prepare.clips import clips, shards\n"
        "def slow(jobs):\n"
        "    for job in jobs: yield shards.write(job); print('one', flush=True); time.sleep(60)\n"
        f"clips.prepare('tiny', {[str(source / f'{s}_segments.csv') for s in whole.splits]}, "
        f"{str(source / 'media')!r}, {str(tmp_path)!r}, {str(source / 'labels.csv')!r}, "
        "clips_per_shard=2, run=slow, log=lambda line: None)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        said = process.stdout.readline()
        process.kill()
    assert said == b"one\n"
    assert process.returncode == -signal.SIGKILL
    work = tmp_path / "tiny" / "incomplete_1.0.0"
    (first,) = work.glob("tiny-*")
    written = first.stat().st_mtime_ns
    # What a process that was killed within a shard leaves behind.
    (work / "partial_tiny-balanced_train.array_record-00001-of-00002").write_bytes(b"half")
    report, lines = _prepare(source, tmp_path)
    assert "2 shards to write; 1 already exist" in lines[0]
    assert (report.folder / first.name).stat().st_mtime_ns == written
    assert _contents(report.folder) == _contents(whole.folder)


def test_files_that_come_later_wait_for_the_next_time(source, tmp_path):
    def stop(jobs):
        yield from map(shards.write, jobs[:1])
        raise KeyboardInterrupt

    media_dir = tmp_path / "media"
    media_dir.mkdir()
    for file in (source / "media" / "below").iterdir():
        os.link(file, media_dir / file.name)
    arguments = ("tiny", [source / "balanced_train_segments.csv"], media_dir, tmp_path)
    options = {"labels": source / "labels.csv", "log": lambda line: None, "processes": 1}
    with pytest.raises(KeyboardInterrupt):
        clips.prepare(*arguments, **options, run=stop)
    os.link(media_dir / f"{IDS[2]}.mp4", media_dir / f"{IDS[4]}.mp4")
    report = clips.prepare(*arguments, **options)
    assert report.splits["balanced_train"]["missing"] == 1


def test_nothing_is_left_when_nothing_is_found(source, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = (source / "eval_segments.csv",)
    with pytest.raises(FileNotFoundError, match="none of 2 segments has a file under"):
        clips.prepare("tiny", arguments, tmp_path / "empty", tmp_path, source / "labels.csv")
    assert not list((tmp_path / "tiny").iterdir())


def test_nothing_is_left_when_nothing_decodes(source, tmp_path):
    table = _table(tmp_path / "eval_segments.csv", EVAL)
    with pytest.raises(ValueError, match=r"none of 1 files could be decoded: InvalidDataError"):
        clips.prepare(
            "tiny",
            [table],
            source / "media",
            tmp_path,
            source / "labels.csv",
            log=lambda line: None,
        )
    assert not list((tmp_path / "tiny").iterdir())


def test_a_split_without_clips_is_left_out(source, tmp_path):
    table = _table(tmp_path / "eval_segments.csv", EVAL)
    report = clips.prepare(
        "tiny",
        [source / "balanced_train_segments.csv", table],
        source / "media",
        tmp_path,
        source / "labels.csv",
        log=lambda line: None,
        processes=1,
    )
    assert report.splits["eval"] == {"broken": 1}
    import tensorflow_datasets as tfds

    builder = tfds.core.read_only_builder.builder_from_files("tiny", data_dir=tmp_path)
    assert list(builder.info.splits) == ["balanced_train"]


def test_the_command(source, tmp_path, capsys):
    flags = ["audioset", "--csv", str(source / "eval_segments.csv"), "--processes=1"]
    paths = ["--clips", str(source / "media"), "--out", str(tmp_path)]
    command.main([*flags, *paths, "--labels", str(source / "labels.csv")])
    assert "eval: 1 clips of 2 segments (1 silent, 1 broken)" in capsys.readouterr().out
    assert (tmp_path / "audioset" / "1.0.0" / "features.json").is_file()
    with pytest.raises(SystemExit, match=r"line 4: '/t/c' not among the 527 known classes"):
        command.main([*flags, *paths])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Audio Set"}, "lowercase letters"),
        ({"csvs": ()}, "at least one table"),
        ({"csvs": ("nowhere_segments.csv",)}, "nowhere_segments.csv: no such file"),
        ({"clips_per_shard": 0}, "at least 1"),
        ({"clips_dir": "nowhere"}, "--clips nowhere: no such folder"),
    ],
)
def test_inputs_are_checked(source, tmp_path, change, message):
    arguments = {
        "name": "tiny",
        "csvs": [source / "eval_segments.csv"],
        "clips_dir": source / "media",
        "data_dir": tmp_path,
        "labels": source / "labels.csv",
        "log": lambda line: None,
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        clips.prepare(**(arguments | change))
    assert not (tmp_path / "tiny").exists() or not list((tmp_path / "tiny").iterdir())

"""Media files as they come, from tables through preparation into training: nothing is lost."""

import csv
import struct
import wave
from fractions import Fraction

import numpy as np
import pytest

import data
from configs import audioset
from data.prepare import __main__ as command
from perceiver.media import video_files
from train import loop

av = pytest.importorskip("av", reason="needs PyAV: pip install av")

SECONDS, SIDE = 1.0, 32
# What is wrong with a file -> its name, the status that is told, a part of the reason.
FILES = {
    "nothing": ("whole000000.mp4", "ok", ""),
    "variable frame rate": ("variable000.mp4", "ok", ""),
    "wrong extension": ("extension00.wav", "ok", ""),  # MP4, as its content tells
    "no audio stream": ("soundless00.mp4", "silent", "no audio"),
    "no video stream": ("pictureless.mp4", "no_picture", "no video"),
    "half as long": ("half0000000.mp4", "short", "0.48 of 1.00 s"),
    "truncated": ("truncated00.mp4", "broken", "InvalidDataError"),
    "zero length": ("empty000000.mp4", "broken", "InvalidDataError"),
    "0 Hz": ("hertzless00.wav", "broken", "InvalidDataError"),
}


def pictures(seconds=SECONDS):
    return np.full((round(seconds * 25), SIDE, SIDE, 3), 200, np.uint8)


def sound(seconds=SECONDS):
    return (0.5 * np.sin(np.arange(round(seconds * 48_000)) / 20)).astype(np.float32)


def write(path, video=None, audio=None):
    video_files.write(path, video, audio, frames_per_second=25, sample_rate=48_000)


def write_wave(path, rate=48_000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound() * 32_767).astype("<i2").tobytes())


def write_variable(path):
    """Frames at 0, 40, 120, 280 ... milliseconds, and no sound; then sound beside them."""
    with av.open(str(path), "w") as output:
        picture = output.add_stream("libx264", rate=25)
        picture.height = picture.width = SIDE
        picture.pix_fmt = "yuv420p"
        picture.codec_context.time_base = Fraction(1, 1000)
        noise = output.add_stream("aac", rate=48_000)
        noise.layout = "mono"
        for time in (0, 40, 120, 280, 600, 960):
            frame = av.VideoFrame.from_ndarray(pictures(0.04)[0], format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            output.mux(picture.encode(frame))
        output.mux(picture.encode())
        frame = av.AudioFrame.from_ndarray(sound()[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        output.mux(noise.encode(frame))
        output.mux(noise.encode())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of the data set `found`, made by the command from tables and files."""
    root = tmp_path_factory.mktemp("media")
    clips = root / "clips"
    clips.mkdir()
    paths = {fault: clips / name for fault, (name, *_) in FILES.items()}
    write(paths["nothing"], pictures(), sound())
    write_variable(paths["variable frame rate"])
    paths["wrong extension"].write_bytes(paths["nothing"].read_bytes())
    write(paths["no audio stream"], pictures())
    write_wave(paths["no video stream"])
    write(paths["half as long"], pictures(0.5), sound(0.5))
    whole = paths["nothing"].read_bytes()
    paths["truncated"].write_bytes(whole[: len(whole) // 2])
    paths["zero length"].write_bytes(b"")
    write_wave(paths["0 Hz"])
    head = bytearray(paths["0 Hz"].read_bytes())
    struct.pack_into("<II", head, 24, 0, 0)
    paths["0 Hz"].write_bytes(bytes(head))
    (root / "labels.csv").write_text("index,mid,display_name\n0,/m/a,one\n1,/m/b,other\n")
    rows = [f'{p.stem}, 0.0, {SECONDS}, "/m/{"ab"[i % 2]}"' for i, p in enumerate(paths.values())]
    rows.append(f'gone0000000, 0.0, {SECONDS}, "/m/a"')
    for split in ("balanced_train", "eval"):
        (root / f"{split}_segments.csv").write_text("\n".join(rows))
    tables = [f"--csv={root / f'{split}_segments.csv'}" for split in ("balanced_train", "eval")]
    more = [f"--clips={clips}", f"--labels={root / 'labels.csv'}", "--name=found", "--processes=1"]
    command.main(["audioset", *tables, *more, f"--out={root}"])
    return root


def settings(root, **fields):
    config = audioset.get_config("embedded,smoke")
    config.data.update(source="clips:found", data_dir=str(root), **fields)
    return config


def test_each_fault_is_named_in_the_report(prepared):
    file = prepared / "found" / "1.0.0" / "report-balanced_train.csv"
    with file.open(newline="") as lines:
        rows = {row["clip"].partition("_")[0]: row for row in csv.DictReader(lines)}
    for fault, (name, status, reason) in FILES.items():
        row = rows[name.partition(".")[0]]
        assert row["status"] == status, fault
        assert reason in row["reason"], fault
    assert rows["gone0000000"]["status"] == "missing"
    assert len(rows) == len(FILES) + 1


def test_what_is_left_of_a_clip_is_trained_on(prepared):
    section = settings(prepared).data
    batches = data.load(section, "validation", batch_size=6, seed=0, train=False)
    written = [fault for fault, (_, status, _) in FILES.items() if status != "broken"]
    assert batches.num_examples == len(written) == 6
    (batch,) = batches
    assert batch["mask"].all()
    assert not batches.broken
    for row, fault in enumerate(written):
        assert batch["video"][row].any() == (fault != "no video stream")
        assert batch["audio"][row].any() == (fault != "no audio stream")
        assert batch["labels"][row].sum() == 1


@pytest.mark.slow  # test_loop.py trains on what is broken
def test_training_goes_on(prepared, tmp_path):
    loop.run(settings(prepared), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_size > 0

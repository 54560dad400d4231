"""DMVR's TFRecords: checksums, messages, clips; against TensorFlow's writer where it is."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from data.clips import clip_records
from data.prepare import __main__ as command
from data.prepare.clips import dmvr, tfrecords

LABELS = 'index,mid,display_name\n0,/m/a,"A, a"\n1,/m/b,B\n2,/m/c,C\n'


def _varint(value):
    value %= 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number, content):
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _feature(value):
    if isinstance(value, np.ndarray):
        return _field(2, _field(1, value.astype("<f4").tobytes()))
    if isinstance(value[0], bytes):
        return _field(1, b"".join(_field(1, item) for item in value))
    return _field(3, _field(1, b"".join(_varint(item) for item in value)))


def _example(context, lists):
    features = b"".join(
        _field(1, _field(1, key.encode()) + _field(2, _feature(value)))
        for key, value in context.items()
    )
    sequences = b"".join(
        _field(
            1,
            _field(1, key.encode()) + _field(2, b"".join(_field(1, _feature(v)) for v in values)),
        )
        for key, values in lists.items()
    )
    return _field(1, features) + _field(2, sequences)


def _record(message):
    head = struct.pack("<Q", len(message))
    return head + tfrecords._masked(head) + message + tfrecords._masked(message)


def _jpeg(shade, size=(32, 24)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def _clip(labels, frames=20, samples=16_000, size=(32, 24), **context):
    audio = 0.5 * np.sin(np.arange(samples) / 5)
    lists = {"image/encoded": [[_jpeg(10 * i, size)] for i in range(frames)]}
    if samples:
        lists["WAVEFORM/feature/floats"] = [audio]
    return _example({"clip/label/index": labels} | context, lists)


def test_the_checksum():
    # RFC 3720, B.4, and a length at each border of lanes
    assert tfrecords.crc32c(b"123456789") == 0xE3069283
    assert tfrecords.crc32c(bytes(32)) == 0x8A9136AA
    assert tfrecords.crc32c(bytes([255] * 32)) == 0x62A8AB43
    assert tfrecords.crc32c(bytes(range(32))) == 0x46DD794E
    assert tfrecords.crc32c(b"") == 0


@pytest.mark.parametrize("size", [1, 3, 4, 5, 1023, 1024, 1025, 2048, 2049, 5000])
def test_the_checksum_of_any_length(size):
    data = np.random.default_rng(size).bytes(size)
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    assert tfrecords.crc32c(data) == register ^ 0xFFFFFFFF


def test_messages():
    floats = np.array([0.5, -1, 3e-9], np.float32)
    message = _example(
        {"a": [7, -3, 1 << 40], "b": [b"", b"x" * 300]}, {"c": [floats, floats[:1]], "d": []}
    )
    context, lists = tfrecords.sequence_example(message)
    np.testing.assert_array_equal(context["a"], [7, -3, 1 << 40])
    assert context["b"] == [b"", b"x" * 300]
    np.testing.assert_array_equal(lists["c"][0], floats)
    np.testing.assert_array_equal(lists["c"][1], floats[:1])
    assert lists["d"] == []
    for damaged in (message[:-1], b"\xff" * 11, b"\x0b"):
        with pytest.raises(ValueError, match=r"not a tf\.train\.SequenceExample"):
            tfrecords.sequence_example(damaged)


def test_what_tensorflow_writes(tmp_path):
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[prepare]")
    floats = np.linspace(-1, 1, 1777).astype(np.float32)
    example = tf.train.SequenceExample()
    example.context.feature["clip/label/index"].int64_list.value[:] = [3, 5]
    example.context.feature["clip/label/text"].bytes_list.value[:] = [b"x", b"y"]
    sound = example.feature_lists.feature_list["WAVEFORM/feature/floats"].feature.add()
    sound.float_list.value[:] = floats
    for shade in (10, 20):
        frame = example.feature_lists.feature_list["image/encoded"].feature.add()
        frame.bytes_list.value[:] = [_jpeg(shade)]
    with tf.io.TFRecordWriter(str(tmp_path / "x")) as writer:
        writer.write(example.SerializeToString())
        writer.write(b"")
    first, second = tfrecords.read(tmp_path / "x")
    assert second == b""
    context, lists = tfrecords.sequence_example(first)
    np.testing.assert_array_equal(context["clip/label/index"], [3, 5])
    assert context["clip/label/text"] == [b"x", b"y"]
    np.testing.assert_array_equal(lists["WAVEFORM/feature/floats"][0], floats)
    assert lists["image/encoded"] == [[_jpeg(10)], [_jpeg(20)]]


def test_damaged_files(tmp_path):
    whole = _record(b"a" * 2000)
    damaged = bytearray(whole)
    damaged[500] ^= 1
    for content, message in {
        whole + whole[:-1]: "record 1: truncated",
        whole + whole[:7]: "record 1: its length field is corrupt",
        whole + bytes(damaged): "record 1: corrupt",
        b"not a file of records": "record 0: its length field is corrupt",
    }.items():
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            list(tfrecords.read(tmp_path / "x"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("dmvr")
    (root / "labels.csv").write_text(LABELS)
    first = [
        _clip([2], **{"video/filename": [b"/videos/abc.mp4"]}),
        _clip([0], **{"clip/label/text": [b"B", b"/m/a"]}),
        _clip([1], frames=0),
        _clip([9]),
    ]
    times = {"clip/start/timestamp": [1_000_000], "clip/end/timestamp": [6_000_000]}
    second = [_clip([1], frames=2, samples=0, size=(500, 300)), _clip([0], **times)]
    (root / "eval-0").write_bytes(b"".join(map(_record, first)))
    (root / "eval-1").write_bytes(b"".join(map(_record, second)) + b"damaged")
    lines = []
    report = dmvr.prepare(
        "tiny",
        {"eval": str(root / "eval-*")},
        root / "out",
        root / "labels.csv",
        frames_per_second=10,
        sample_rate=8000,
        run=lambda jobs: map(dmvr.shards.write, jobs),
        log=lines.append,
    )
    return root, report


def test_records_become_clips(prepared):
    import tensorflow_datasets as tfds

    root, report = prepared
    assert report.splits["eval"] == {"ok": 2, "no_picture": 1, "broken": 2, "silent": 1, "short": 1}
    builder = tfds.core.read_only_builder.builder_from_files("tiny", data_dir=root / "out")
    source = builder.as_data_source(
        split="eval", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    codec = clip_records.ClipCodec(builder.info.features)
    clips = [codec.decode(source[i]) for i in range(len(source))]
    assert [list(clip.labels) for clip in clips] == [[2], [0, 1], [1], [1], [0]]
    assert clips[0].id == "eval-0:0:abc.mp4"
    assert [len(clip.frames) for clip in clips] == [50, 50, 0, 5, 50]
    assert [len(clip.audio) for clip in clips] == [96_000, 96_000, 96_000, 0, 96_000]
    levels = [np.asarray(Image.open(io.BytesIO(f))).mean() for f in clips[0].frames]
    shown = np.floor(10 * (np.arange(50) + 0.5) / 25 - 1e-6)
    np.testing.assert_allclose(levels, 10 * shown, atol=1)
    spectrum = np.abs(np.fft.rfft(clips[0].audio))
    tone = np.fft.rfftfreq(96_000, 1 / 48_000)[spectrum.argmax()]
    assert tone == pytest.approx(8000 / 5 / 2 / np.pi, abs=1)
    assert np.abs(clips[0].audio[1000:-1000]).max() == pytest.approx(16_384, rel=0.02)
    assert Image.open(io.BytesIO(clips[3].frames[0])).size == (426, 256)


def test_what_cannot_be_read_is_reported(prepared):
    _, report = prepared
    text = (report.folder / "report-eval.csv").read_text()
    assert 'eval-0:3,broken,"labels [9]: at least one is needed, and all must be below 3"' in text
    assert "eval-1:2-,broken,record 2: its length field is corrupt or truncated" in text
    assert "short,2.00 of 5.00 s" in text


def test_the_command(prepared, tmp_path, capsys):
    root, _ = prepared
    flags = ["audioset", "--labels", str(root / "labels.csv"), "--out", str(tmp_path)]
    rates = ["--records_fps=10", "--records_rate=8000", "--processes=1"]
    command.main([*flags, *rates, f"--records=eval={root / 'eval-*'}"])
    assert "eval: 5 clips of 7 segments" in capsys.readouterr().out
    for wrong, message in {
        (): "give --csv with --clips, or --records",
        ("--csv=x.csv",): "give --csv with --clips, or --records",
        ("--records=eval",): "must be SPLIT=GLOB",
        ("--records=eval=/nowhere/*",): "no file matches",
    }.items():
        with pytest.raises(SystemExit, match=message):
            command.main([*flags, *wrong])

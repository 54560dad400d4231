"""`python -m perceiver.predict`: each kind of model, from files to results."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import perceiver
from perceiver import predict
from perceiver.media import video_files
from perceiver.pretrained.use.clips import Tagged

COMMON = {"latents": 5, "latent_channels": 8, "layers": 1, "self_heads": 2}
SPECS = {
    "image": COMMON
    | {"kind": "image_classifier", "image_shape": (8, 12, 1), "classes": 3}
    | {"bands": 3, "query_channels": 8},
    "text": COMMON
    | {"kind": "masked_lm", "max_length": 99, "embedding_channels": 8, "cross_qk_channels": 8}
    | {"query_qk_channels": 8},
    "flow": COMMON
    | {"kind": "optical_flow", "frame_shape": (10, 12, 3), "patch_channels": 4, "bands": 2},
    "clips": COMMON
    | {"kind": "clip_classifier", "video_shape": (2, 8, 16, 3), "video_patch": (2, 4, 4)}
    | {"classes": 7, "video_bands": 2, "audio": "raw", "samples": 3840, "audio_bands": 3}
    | {"query_channels": 8},
    "labels": COMMON
    | {"kind": "text_classifier", "max_length": 99, "embedding_channels": 8, "cross_qk_channels": 8}
    | {"query_qk_channels": 8, "classes": 4, "tasks": ("one", "two"), "task_classes": (3, 1)},
    "sentences": COMMON
    | {"kind": "sentence_encoder", "max_length": 99, "embedding_channels": 8, "classes": 3}
    | {"cross_qk_channels": 8, "query_qk_channels": 8},
    "video": COMMON
    | {"kind": "video_autoencoder", "video_shape": (2, 8, 16, 3), "samples": 3840, "classes": 7}
    | {"video_bands": 2, "audio_bands": 3, "label_query_channels": 20, "decoder_channels": 8},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory, draw_model):
    """Folders of tiny models; the image classifier is a run's, without its checkpoints."""
    root = tmp_path_factory.mktemp("models")
    for name, spec in SPECS.items():
        model = draw_model(spec)
        model.save(root / name / "model" if name == "image" else root / name)
    return root


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Leaves this process's compile cache as it is."""
    monkeypatch.setattr(predict.compile_cache, "enable", lambda: None)


@pytest.fixture
def files(tmp_path, rng):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, shape in zip(paths, [(18, 22), (18, 22, 3), (40, 90)], strict=True):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return [str(path) for path in paths]


def test_pictures_get_labels(models, files, capsys):
    predict.main([str(models / "image"), *files, "--top", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 3
    predict.main([str(models / "image" / "model"), files[0], "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["file"] == files[0]
    assert {row["label"] for row in shown["labels"]} == {"class 0", "class 1", "class 2"}
    assert sum(row["probability"] for row in shown["labels"]) == pytest.approx(1)


def test_broken_inputs_are_named_and_counted_and_the_others_have_results(
    models, files, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(predict.Pretrained, "batch_size", 2)  # of the field's default
    (tmp_path / "bad.png").write_bytes(b"xx")
    given = [*files, str(tmp_path / "bad.png"), files[0]]
    with pytest.raises(SystemExit, match=r"^1 of 5 inputs were broken and have no result$"):
        predict.main([str(models / "image"), *given, "--top", "1"])
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == [*files, files[0]]
    assert f"input 3 is broken: cannot decode an image from {tmp_path}/bad.png" in err
    out = tmp_path / "rows.npy"
    with pytest.raises(SystemExit, match="1 of 5"):
        predict.main([str(models / "image"), *given, "--embed", "--out", str(out)])
    rows = np.load(out)
    np.testing.assert_array_equal(np.isnan(rows).all(axis=1), [False] * 3 + [True, False])
    np.testing.assert_allclose(rows[0], rows[4], atol=1e-6)


def test_texts_are_filled_in(models, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("from [MASK:4]"))
    predict.main([str(models / "text"), "one [MASK]wo", "-", "--json"])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["text"].startswith("one ")
    assert first["spans"][0]["start"] == 4
    assert second["spans"][0]["stop"] == 9


def test_texts_and_pairs_get_labels_or_a_number(models, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("one"))
    predict.main([str(models / "labels"), "-", "one[SEP]two", "--json", "--task", "one"])
    alone, pair = map(json.loads, capsys.readouterr().out.splitlines())
    assert {row["label"] for row in pair["labels"]} == {"class 0", "class 1", "class 2"}
    assert alone["labels"] != pair["labels"]
    predict.main([str(models / "labels"), "one[SEP]two", "--task", "two"])
    assert capsys.readouterr().out.startswith("one[SEP]two: class 3 ")
    with pytest.raises(SystemExit):
        predict.main([str(models / "labels"), "one"])
    assert "this model expects one of one, two" in capsys.readouterr().err


def test_sentences_are_compared_or_embedded(models, tmp_path, capsys):
    folder, pair = str(models / "sentences"), "one text[SEP]one text"
    predict.main([folder, pair, "a[SEP]b", "--json", "--top", "2"])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["cosine"] == pytest.approx(1, abs=1e-5)
    assert (second["text"], len(second["labels"])) == ("a[SEP]b", 2)
    predict.main([folder, pair])
    assert "one text: cosine 1.000, class " in capsys.readouterr().out
    predict.main([folder, "one text", "two", "--embed", "--out", str(tmp_path / "e.npy")])
    assert np.load(tmp_path / "e.npy").shape == (2, 8)
    with pytest.raises(SystemExit):
        predict.main([folder, "one text"])
    assert "is not a pair: write one text[SEP]another, or add --embed" in capsys.readouterr().err


def test_pictures_and_texts_are_embedded(models, files, tmp_path, capsys):
    for name, given in (("image", files), ("text", ["a", "bc"]), ("labels", ["a[SEP]b", "c"])):
        out = tmp_path / f"{name}.npy"
        predict.main([str(models / name), *given, "--embed", "--json", "--out", str(out)])
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["input"] for row in rows] == given
        saved = np.load(out)
        assert saved.shape == (len(given), 8)
        np.testing.assert_allclose([row["embedding"] for row in rows], saved)
    expected = perceiver.load(models / "labels").embed([("a", "b"), "c"])
    np.testing.assert_allclose(saved, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "npy", "flo"])
def test_two_frames_get_flow(models, files, tmp_path, suffix, capsys):
    out = tmp_path / f"flow.{suffix}"
    predict.main([str(models / "flow"), files[0], files[1], "--out", str(out)])
    assert "18x22" in capsys.readouterr().out
    expected = perceiver.load(models / "flow").flow(files[0], files[1])
    if suffix == "png":
        with Image.open(out) as picture:
            assert picture.size == (22, 18)
    elif suffix == "npy":
        np.testing.assert_allclose(np.load(out), expected, atol=1e-6)
    else:
        data = out.read_bytes()
        assert data[:4] == b"PIEH"
        assert np.frombuffer(data[4:12], "<i4").tolist() == [22, 18]
        flow = np.frombuffer(data[12:], "<f4").reshape(18, 22, 2)
        np.testing.assert_allclose(flow, expected, atol=1e-6)


def test_a_video_is_rebuilt_and_labelled(models, tmp_path, rng, capsys):
    pytest.importorskip("av", reason="needs PyAV: pip install av")
    video = rng.integers(0, 256, (3, 8, 16, 3), dtype=np.uint8)
    sound = rng.uniform(-0.1, 0.1, 3 * 1920).astype(np.float32)
    rates = {"frames_per_second": 25, "sample_rate": 48_000}
    video_files.write(tmp_path / "clip.mp4", video, sound, **rates)
    out = tmp_path / "again.mp4"
    predict.main([str(models / "video"), str(tmp_path / "clip.mp4"), "--out", str(out), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["labels"]) == 3
    frames, samples = video_files.read(out, (8, 16), **rates)
    assert frames.shape == video.shape
    assert len(samples) == len(sound)


def test_a_video_is_tagged_with_a_timeline(models, tmp_path, rng, capsys):
    pytest.importorskip("av", reason="needs PyAV: pip install av")
    video = rng.integers(0, 256, (25, 8, 16, 3), dtype=np.uint8)
    file, rates = str(tmp_path / "clip.mp4"), {"frames_per_second": 25, "sample_rate": 48_000}
    video_files.write(file, video, None, **rates)
    command = [str(models / "clips"), file, "--top", "2"]
    predict.main([*command, "--hop", "0.2", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert [row["start"] for row in shown["timeline"]] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert shown["missing"] == ["sound"]
    assert len(shown["labels"]) == len(shown["timeline"][0]["labels"]) == 2
    predict.main(command)
    first, notice, *timeline = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{file}: class ")
    assert notice == "  no sound: replaced by silence"
    assert timeline[0].startswith("  0:00.0-")
    assert timeline[-1].split()[0].endswith("-0:01.0")


def test_a_timeline_joins_windows_of_one_best_label():
    def row(start, label, score):
        return start, [(label, score), ("other", 0.1)]

    timeline = [row(0, "dog", 0.5), row(1, "dog", 0.7), row(2, "cat", 0.9), row(3600, "dog", 0.6)]
    found = predict._stretches(Tagged([], timeline, 1.28, ()))
    assert [(when, labels[0]) for when, labels in found] == [
        ("0:00.0-0:02.3", ("dog", 0.7)),
        ("0:02.0-0:03.3", ("cat", 0.9)),
        ("1:00:00.0-1:00:01.3", ("dog", 0.6)),
    ]


def test_without_a_place_for_compiled_programs_it_answers_all_the_same(models, monkeypatch, capsys):
    def refuse():
        raise PermissionError("read-only")

    monkeypatch.setattr(predict.compile_cache, "enable", refuse)
    predict.main([str(models / "text"), "a[MASK]"])
    shown = capsys.readouterr()
    assert shown.out.startswith("a")
    assert "compile cache disabled: read-only" in shown.err


def test_other_sizes_and_operands_can_be_asked_for(models, files, capsys):
    more = ["--image-size", "9", "13", "--operands", "bfloat16"]
    predict.main([str(models / "image"), files[0], *more])
    assert files[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{models}/image", "gone.png"], "no such image file: gone.png"),
        (["gone", "{file}"], "'gone' is neither a file nor a folder"),
        (["{empty}", "{file}"], "empty"),
        (["{running}", "{file}"], "has not exported its model yet"),
        (["{models}/image", "{file}", "--top", "0"], "--top must be at least 1, got 0"),
        (["{models}/clips", "{file}", "--hop", "0"], "--hop must be positive, got 0"),
        (["{models}/clips", "gone.mp4"], "no such media file: gone.mp4"),
        (["{models}/text", "no mark"], "nothing is masked in 'no mark'"),
        (["{models}/flow", "{file}"], "needs two frames, got 1 files"),
        (["{models}/flow", "{file}", "{file}", "--out", "x.gif"], "--out x.gif: write flow as one"),
        (["{models}/flow", "{file}", "{file}", "--embed"], "--embed is for images and texts"),
        (["{models}/text", "a", "--embed", "--out", "x.csv"], "write embeddings as .npy"),
        (["{models}/video", "{file}", "{file}"], "give one video file, got 2"),
        (["{models}/text", "[MASK]", "--image-size", "3", "3"], "has no image size"),
    ],
)
def test_bad_arguments_are_named(arguments, message, models, files, tmp_path, capsys):
    (tmp_path / "running" / "checkpoints").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    places = {"models": models, "file": files[0]}
    places |= {"empty": tmp_path / "empty", "running": tmp_path / "running"}
    with pytest.raises(SystemExit) as stop:
        predict.main([word.format(**places) for word in arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err

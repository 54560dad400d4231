"""`python -m perceiver.embed`: lines of a file -> rows of a .npy."""

import io
import types

import numpy as np
import pytest

import perceiver
from perceiver import embed
from perceiver.pretrained import embedding

CLOSE = 1e-5  # float32 sums in another order
SIZES = {"latents": 5, "latent_channels": 8, "layers": 1, "self_heads": 2}
SPECS = {
    "masked_lm": SIZES | {"embedding_channels": 8, "cross_qk_channels": 8, "query_qk_channels": 8},
    "masked_lm_transformer": {"layers": 1, "channels": 8, "heads": 2},
}
SPECS["text_classifier"] = SPECS["masked_lm"] | {"classes": 3}
LINES = ["tiny", "of middling length, " * 5, "", "é" * 70, "tiny", "\t", "a much longer line. " * 8]


@pytest.fixture(scope="module", params=SPECS)
def folder(request, tmp_path_factory, draw_model):
    """A tiny model of each kind."""
    folder = tmp_path_factory.mktemp("models") / request.param
    spec = SPECS[request.param] | {"kind": request.param, "max_length": 150}
    draw_model(spec).save(folder)
    return folder


@pytest.fixture(scope="module")
def model(draw_model):
    spec = SPECS["masked_lm"] | {"kind": "masked_lm", "max_length": 150}
    return draw_model(spec, batch_size=2)


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """Leaves this process's compile cache as it is."""
    monkeypatch.setattr(embed.compile_cache, "enable", lambda: None)


def write_lines(path, lines):
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return str(path)


def test_rows_are_in_the_files_order_and_padding_changes_nothing(folder, tmp_path, capsys):
    out = tmp_path / "x.npy"
    text = write_lines(tmp_path / "lines.txt", LINES)
    embed.main([str(folder), text, f"--out={out}", "--batch_size=3"])
    found = np.load(out)
    model = perceiver.load(folder, batch_size=1)
    assert found.dtype == np.float32
    assert found.shape == (7, 8)
    for line, row in zip(LINES, found, strict=True):
        if line:
            # What is too long loses its end: 150 bytes are read.
            np.testing.assert_allclose(row, model.embed([line[:150]])[0], atol=CLOSE)
        else:
            assert not row.any()
    np.testing.assert_array_equal(found[0], found[4])
    told = capsys.readouterr().out
    assert "7 lines of 8 channels" in told
    assert "1 empty: rows of zeros" in told
    assert "1 too long: truncated" in told


def test_stdin_normalised_and_cut(folder, tmp_path, monkeypatch):
    if folder.name != "masked_lm":
        pytest.skip("of one kind of model is enough")
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(b"abcd\r\n\nabxy")))
    out = tmp_path / "x.npy"
    embed.main([str(folder), "-", f"--out={out}", "--normalise", "--max_length=2"])
    found = np.load(out)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 1], atol=CLOSE)


def test_a_cut_never_splits_a_character(model):
    given = embedding.fit(model, ["aéé", "ab", "é"], max_length=2)
    assert given.texts == ["a", "ab", "é"]
    assert (given.sizes.tolist(), given.cut, given.reads) == ([1, 2, 2], 1, 150)


def test_a_start_that_has_more_tokens_than_in_the_whole_is_cut_further(model, monkeypatch):
    known = embedding.coders.BYTES

    def encode(text):  # "abcde" has the subwords "ab" and "cde"; without "e" there is "c" and "d"
        split = {"abcde": ["ab", "cde"], "abcd": ["ab", "c", "d"], "abc": ["ab", "c"]}
        return np.array([ord(piece[0]) + 6 for piece in split[text]])

    written = {1: "abc", 2: "abcd"}
    coder = known._replace(encode=encode, decode=lambda ids: written[len(ids)])
    monkeypatch.setattr(embedding.coders, "of_usage", lambda _: coder)
    given = embedding.fit(model, ["abcde", "abc", "abcd"], max_length=2)
    assert given.texts == ["abcde", "abc", "abc"]
    assert (given.sizes.tolist(), given.cut) == ([2, 2, 2], 1)


def test_an_error_leaves_the_file_that_was_there(model, tmp_path, monkeypatch):
    out = tmp_path / "x.npy"
    out.write_bytes(b"before")
    given = embedding.fit(model, ["one", "two", "three"])
    calls = iter([None, OSError("no space left")])
    whole = perceiver.Pretrained.embed

    def fail_later(self, texts):
        fault = next(calls)
        if fault:
            raise fault
        return whole(self, texts)

    monkeypatch.setattr(perceiver.Pretrained, "embed", fail_later)
    with pytest.raises(OSError, match="no space left"):
        embed.write(out, model, given)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    assert out.read_bytes() == b"before"


def test_one_batch_at_a_time_is_in_memory(model, tmp_path, monkeypatch):
    sizes = []
    whole = perceiver.Pretrained.embed
    monkeypatch.setattr(
        perceiver.Pretrained, "embed", lambda self, x: sizes.append(len(x)) or whole(self, x)
    )
    texts = [f"{i}" for i in range(7)]
    report = embed.write(tmp_path / "x.npy", model, embedding.fit(model, texts))
    assert sizes == [2, 2, 2, 1]
    assert (report.lines, report.padding) == (7, 64.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\nbad \xff\n", "line 2: byte 5 is not valid UTF-8"),
        (b"", "has no lines"),
        (b"\n\n", "all 2 texts are empty"),
    ],
)
def test_a_file_that_cannot_be_embedded(tmp_path, model, monkeypatch, capsys, content, message):
    monkeypatch.setattr(embed, "load", lambda *_, **__: model)
    path = tmp_path / "lines.txt"
    path.write_bytes(content)
    with pytest.raises(SystemExit):
        embed.main(["any", str(path), f"--out={tmp_path / 'x.npy'}"])
    assert message in capsys.readouterr().err
    assert [found.name for found in tmp_path.iterdir()] == ["lines.txt"]


def test_other_ends_of_lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffone\r\ntw\u2028o\x0b\n\nlast".encode())
    assert embed.read_lines(str(path)) == ["one", "tw\u2028o\x0b", "", "last"]


def test_wrong_arguments(tmp_path, model, capsys):
    with pytest.raises(ValueError, match="max_length=151, but the model reads 1 to 150"):
        embedding.fit(model, ["a"], max_length=151)
    images = types.SimpleNamespace(spec=types.SimpleNamespace(kind="image_classifier"))
    with pytest.raises(ValueError, match="kind image_classifier does not read texts"):
        embedding.fit(images, ["a"])
    for out in ("x.txt", "absent/x.npy"):
        with pytest.raises(SystemExit):
            embed.main(["any", "lines.txt", f"--out={tmp_path / out}"])
        assert "name a .npy file in a folder that exists" in capsys.readouterr().err

import csv
import gzip
import json
import signal
import subprocess
import sys
import types

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from data.prepare.__main__ import main
from data.prepare.text import files, text
from data.prepare.text import inputs as text_inputs
from data.prepare.text import writing as text_writing
from data.prepare.text.pieces import Fault, Reading, Text
from data.text.text_store import open_store

_TEXTS = ["one two", "zwölf 十二 🐴", "a line\nand another\n", "  spaces kept "]


def prepared(tmp_path, *inputs, reading=None, **settings):
    """Returns (all documents, training first; rows of both reports) of a preparation."""
    folder = text.prepare(
        [str(path) for path in inputs],
        tmp_path / "out",
        "t",
        reading,
        **{"eval_share": 0.0, "log": lambda line: None} | settings,
    )
    documents, rows = [], []
    for split in ("train", "validation"):
        store = open_store(folder / split)
        documents += [store.document(i).tobytes().decode() for i in range(len(store))]
        with (store.folder / "report.csv").open(encoding="utf-8") as file:
            rows += list(csv.DictReader(file))
        assert store.settings()["documents"] == len(store)
        assert store.settings()["bytes"] == len(store.bytes)
    return documents, rows


def ended(texts):
    """What a store holds: each document ends in white space."""
    return [x if x[-1].isspace() else x + "\n" for x in texts]


def pack(content, packing):
    if packing == ".gz":
        return gzip.compress(content)
    if packing == ".zst":
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()
    return content


def written(path, kind, texts=_TEXTS, field="text"):
    """Returns the content of a file of a kind."""
    if kind in (".jsonl", ".json", ".ndjson"):
        return "".join(json.dumps({"id": 7, field: x}) + "\n" for x in texts).encode()
    if kind in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t" if kind == ".tsv" else ",")
            table.writerows([("id", field), *((7, x) for x in texts)])
    else:
        parquet.write_table(pyarrow.table({"id": [7] * len(texts), field: texts}), path)
    return path.read_bytes()


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet"])
def test_every_format_and_packing(tmp_path, kind, packing):
    content = written(tmp_path / "raw", kind, field="body")
    path = tmp_path / f"a{kind}{packing}"
    path.write_bytes(pack(content, packing))
    documents, rows = prepared(tmp_path, path, reading=Reading(field="body"))
    assert documents == ended(_TEXTS)
    assert rows == []


def test_a_quotation_mark_between_tabs_swallows_no_rows(tmp_path):
    texts = [f"{chr(34) * (i % 3 == 0)}row {i}{chr(34) * (i % 3 == 1)}" for i in range(30)]
    (tmp_path / "a.TSV").write_text("\n".join(["text\tlabel", *(f"{x}\ta" for x in texts)]))
    documents, rows = prepared(tmp_path, tmp_path / "a.TSV")
    assert sorted(documents) == sorted(ended(texts))
    assert rows == []


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_text_files_and_folders(tmp_path, packing):
    folder = tmp_path / "in"
    for name, content in [("b/x.txt", "later"), ("a.md", "\ufefffirst"), (".git/x", "hidden")]:
        path = folder / (name + packing)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack(content.encode(), packing))
    (folder / "circle").symlink_to(folder)
    documents, rows = prepared(tmp_path, folder)
    assert documents == ["first\n", "later\n"]  # without the byte order mark
    assert rows == []


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_packed_parts_one_after_the_other(tmp_path, packing):
    (tmp_path / f"a.txt{packing}").write_bytes(pack(b"one ", packing) + pack(b"two", packing))
    assert prepared(tmp_path, tmp_path / f"a.txt{packing}")[0] == ["one two\n"]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("file", ["a b\nc\n\n \nd\n\ne\n"]),
        ("line", ["a b\n", "c\n", "d\n", "e\n"]),
        ("paragraph", ["a b\nc\n\n", "d\n\n", "e\n"]),
    ],
)
def test_what_a_document_of_plain_text_is(tmp_path, documents, expected):
    (tmp_path / "a.txt").write_text("a b\nc\n\n \nd\n\ne")
    reading = Reading(documents=documents)
    assert prepared(tmp_path, tmp_path / "a.txt", reading=reading) == (expected, [])


def test_a_long_file_is_cut_at_line_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST", 101)
    content = "".join(f"zeile {i} süß\n" for i in range(97))
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    documents, _ = prepared(tmp_path, tmp_path / "a.txt")
    assert "".join(documents) == content
    assert all(x.endswith("\n") and 101 <= len(x.encode()) < 120 for x in documents[:-1])


# Faults: named in their place, counted, and what is good around them is kept.

_FAULTS = {
    "binary": ("x.txt", b"GIF89a\0\1\2", "binary", "", "a zero byte at 6"),
    "control": ("x.txt", b"ab\1\2\3\4", "binary", "", "4 control characters in 6 bytes"),
    "utf-16": ("x.txt", "text".encode("utf-16"), "binary", "", "looks like UTF-16"),
    "packed": ("x.txt", gzip.compress(b"text"), "binary", "", "looks like gzip"),
    "empty": ("x.txt", b"", "empty", "", "no bytes"),
    "blank": ("x.txt", b" \n\n ", "empty", ":1", "only white space"),
    "cut gzip": ("x.txt.gz", gzip.compress(bytes(range(97, 122)) * 9)[:-9], "broken", "", "end"),
    "cut zstd": ("x.txt.zst", pack(b"some text " * 99, ".zst")[:-7], "broken", "", "end"),
    "no gzip": ("x.txt.gz", b"plain text", "broken", "", "gzip"),
    "no zstd": ("x.txt.zst", b"plain text", "broken", "", "end"),
    "no field": ("x.jsonl", b'{"body": "a"}\n', "no_field", ":1", "no field 'text'; it has body"),
    "null": ("x.jsonl", b'{"text": null}\n', "no_field", ":1", "'text' is empty"),
    "number": ("x.jsonl", b'\n{"text": 3}\n', "no_field", ":2", "of type int, not text"),
    "list": ("x.jsonl", b'["text"]\n', "no_field", ":1", "type list instead of an object"),
    "no json": ("x.jsonl", b"text\n", "broken", ":1", "not a JSON object on one line"),
    "deep": ("x.jsonl", b"[" * 99_999, "broken", ":1", "not a JSON object on one line"),
    "long json": ("x.jsonl", b'{"text": "' + b"a" * 999 + b'"}', "long_line", ":1", "1011 bytes"),
    "long line": ("x.txt", b"a" * 1000 + b"\n", "long_line", ":1", "a line of 1001 bytes"),
    "no column": ("x.csv", b"a,b\n1,2\n", "no_field", "", "no field 'text'; it has a, b"),
    "short row": ("x.csv", b"a,text\n1\n", "no_field", ":2", "no field 'text'; it has a"),
    "open quote": ("x.csv", b'text\n"' + b"a\n" * 999, "broken", ":", "not a row of a table"),
    "no parquet": ("x.parquet", b"PAR1 and no more", "broken", "", "cannot be read"),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_fault_is_named_and_the_rest_is_kept(tmp_path, fault):
    name, content, kind, place, reason = _FAULTS[fault]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(content)
    (folder / "y.txt").write_text("good")
    reading = Reading(max_line_bytes=700 if "long" in fault or "quote" in fault else 10**6)
    documents, rows = prepared(tmp_path, folder, reading=reading)
    assert documents[-1] == "good\n"
    assert rows[0]["kind"] == kind
    assert rows[0]["place"].startswith(str(folder / name) + place)
    assert reason in rows[0]["reason"]
    assert {row["kind"] for row in rows} == {kind}


def test_a_fault_is_fatal_when_asked(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "good"}\n{"body": "bad"}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl:2: no field 'text'; it has body\. Repair it"):
        prepared(tmp_path, tmp_path / "x.jsonl", strict=True)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv"])
@pytest.mark.parametrize("invalid", ["replace", "drop", "error"])
def test_invalid_utf8(tmp_path, kind, invalid):
    start, stop = {".txt": (b"", b""), ".jsonl": (b'{"text": "', b'"}'), ".csv": (b"text\n", b"")}[
        kind
    ]
    (tmp_path / f"a{kind}").write_bytes(start + b"caf\xe9 ol\xc3\xa9" + stop + b"\n")
    (tmp_path / "b.txt").write_text("good")
    paths = (tmp_path / f"a{kind}", tmp_path / "b.txt")
    if invalid == "error":
        with pytest.raises(ValueError, match=r"not UTF-8: byte 0xe9 at 3\. Repair it, or choose"):
            prepared(tmp_path, *paths, invalid=invalid)
        return
    documents, rows = prepared(tmp_path, *paths, invalid=invalid)
    assert documents == (["caf\ufffd olé\n", "good\n"] if invalid == "replace" else ["good\n"])
    assert [row["kind"] for row in rows] == ["invalid"]


def test_half_a_character_in_json_is_invalid(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x\\ud83dy"}\n')
    documents, rows = prepared(tmp_path, tmp_path / "a.jsonl")
    assert documents == ["x\ufffd\ufffd\ufffdy\n"]
    assert [row["kind"] for row in rows] == ["invalid"]


def test_faults_beyond_the_told_ones_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(text_writing, "_MOST_TOLD", 3)
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + "bad\n" * 11)
    _, rows = prepared(tmp_path, tmp_path / "a.jsonl")
    assert len(rows) == 3
    settings = json.loads((tmp_path / "out/t/train/settings.json").read_text())
    assert settings["left_out"] == {"broken": 11}


def test_a_huge_line_is_not_held(tmp_path):
    class Endless:
        """A line of 2**40 bytes, of which no more may be asked for than the limit allows."""

        left = 2**40

        def readline(self, size):
            assert 0 < size <= max(2**20, 1009)
            self.left -= 2**36  # as if so much were read
            return b"a" * size if self.left > 0 else b""

    ((number, fault),) = files.lines(Endless(), "x", 1007)
    assert number == 1
    assert isinstance(fault, Fault)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_the_longest_line_is_as_long_as_said(tmp_path, end):
    (tmp_path / "a.txt").write_bytes(b"a" * 61 + end)
    found = {}
    for limit in (60, 61):
        reading = Reading(max_line_bytes=limit)
        found[limit] = list(text_inputs.read(str(tmp_path / "a.txt"), reading))
    assert [type(x) for x in found[60]] == [Fault]
    assert [type(x) for x in found[61]] == [Text]


# Splits, names, interruptions.


def test_the_split_depends_on_content_alone(tmp_path):
    lines = [f"document number {i}" for i in range(2003)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "b.txt").write_text("\n".join(lines[::-1] + lines))
    sides = []
    for name in "ab":
        folder = text.prepare(
            [str(tmp_path / f"{name}.txt")],
            tmp_path,
            name,
            Reading(documents="line"),
            eval_share=0.1,
            log=lambda line: None,
        )
        stores = [open_store(folder / split) for split in ("train", "validation")]
        sides.append([set(bytes(store.bytes).splitlines()) for store in stores])
    assert sides[0] == sides[1]
    assert not sides[0][0] & sides[0][1]
    assert abs(len(sides[0][1]) / 2003 - 0.1) < 4 * (0.1 * 0.9 / 2003) ** 0.5


def test_validation_may_have_its_own_input(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    prepared(tmp_path, tmp_path / "a.txt", eval_inputs=[str(tmp_path / "b.txt")], eval_share=0.9)
    folder = tmp_path / "out/t"
    assert (folder / "train/bytes.bin").read_text() == "one\n"
    assert (folder / "validation/bytes.bin").read_text() == "two\n"


def test_preparing_again_finds_it_or_tells_the_difference(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    first = prepared(tmp_path, tmp_path / "a.txt")
    changed = (tmp_path / "out/t/train/bytes.bin").stat().st_mtime_ns
    assert prepared(tmp_path, tmp_path / "a.txt") == first
    assert (tmp_path / "out/t/train/bytes.bin").stat().st_mtime_ns == changed
    with pytest.raises(ValueError, match=r"other settings \(invalid 'replace' there, 'drop' req"):
        prepared(tmp_path, tmp_path / "a.txt", invalid="drop")


_KILLED = """
import os, signal, sys
from data.prepare.text import text
from data.prepare.text import writing as text_writing
from data.prepare.text.pieces import Reading
add = text_writing.StoreWriter.add
def killed(store, content):
    add(store, content)
    if store.documents == 7:
        os.kill(os.getpid(), signal.SIGKILL)
text_writing.StoreWriter.add = killed
text.prepare([sys.argv[1]], sys.argv[2], "t", Reading(documents="line"), eval_share=0.0)
"""


def test_a_killed_preparation_leaves_nothing_under_the_name(tmp_path):
    (tmp_path / "a.txt").write_text("a\n" * 11)
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "a.txt"), str(tmp_path / "out")]
    done = subprocess.run(command, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["incomplete_t"]
    reading = Reading(documents="line")
    assert prepared(tmp_path, tmp_path / "a.txt", reading=reading)[0] == ["a\n"] * 11
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["t"]


def test_documents_beyond_a_digit_keep_the_header_whole(tmp_path):
    writer = text_writing.StoreWriter(tmp_path / "s")
    for i in range(1234):
        writer.add(b"%d" % i)
    writer.close({}, text_writing.FaultReport())
    store = open_store(tmp_path / "s")
    assert [store.document(i).tobytes() for i in (0, 9, 1233)] == [b"0\n", b"9\n", b"1233\n"]
    assert store.starts.dtype == np.int64


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"inputs": ["nowhere.txt"]}, FileNotFoundError, "--input nowhere.txt: no such file"),
        ({"name": "a+b"}, ValueError, "--name 'a\\+b': choose a plain name"),
        ({"name": "../up"}, ValueError, "choose a plain name"),
        ({"eval_share": 1.0}, ValueError, r"--eval_share must be in \[0, 1\), got 1\.0"),
        ({"invalid": "guess"}, ValueError, "--invalid 'guess': choose one of"),
    ],
)
def test_settings_are_checked(tmp_path, settings, error, message):
    (tmp_path / "a.txt").write_text("one")
    given = {"inputs": [str(tmp_path / "a.txt")], "out": tmp_path / "out", "name": "t"}
    with pytest.raises(error, match=message):
        text.prepare(**given | settings)


def test_no_document_at_all_names_the_first_fault(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"content": "x"}\n' * 3)
    with pytest.raises(
        ValueError, match=r"no documents in .*jsonl:1: no field 'text'; it has cont"
    ):
        prepared(tmp_path, tmp_path / "a.jsonl")


def test_the_command(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"body": "one"}\n{"text": "two"}\n')
    common = ["--out", str(tmp_path), "--name", "t", "--field", "body", "--eval_share", "0"]
    main(["text", "--input", str(tmp_path / "a.jsonl"), *common])
    said = capsys.readouterr().out
    assert "train: 1 documents, 4 bytes; faults: 1 no_field; see" in said
    with pytest.raises(SystemExit, match=r"data\.prepare text: --input .*no such file or folder"):
        main(["text", "--input", str(tmp_path / "b.jsonl"), *common])


# Data sets of others.


def test_tfds(tmp_path):
    import tensorflow_datasets as tfds

    from data.prepare import writing

    recipe = writing.Recipe(
        name="sayings",
        version="1.0.0",
        description="Texts to read.",
        features={"body": tfds.features.Text(), "title": tfds.features.Text()},
        splits={"test": lambda: ((str(i), {"body": x, "title": "t"}) for i, x in pairs)},
        settings={},
    )
    pairs = list(enumerate(_TEXTS))
    writing.write(recipe, tmp_path / "tfds")
    reading = Reading(field="body", tfds_dir=str(tmp_path / "tfds"))
    documents, rows = prepared(tmp_path, "tfds:sayings@test", reading=reading)
    assert sorted(documents) == sorted(ended(_TEXTS))
    assert rows == []
    for source, error, message in [
        ("tfds:sayings", ValueError, r"no split 'train', only \['test'\]"),
        ("tfds:nothing", FileNotFoundError, "run `tfds build nothing --file_format=array_record"),
    ]:
        with pytest.raises(error, match=message):
            list(text_inputs.read(source, reading))
    with pytest.raises(ValueError, match=r"has no field 'text', only \['body', 'title'\]"):
        list(text_inputs.read("tfds:sayings@test", Reading(tfds_dir=reading.tfds_dir)))


def test_the_hub(tmp_path, monkeypatch):
    asked = []

    class Streamed(list):
        """What the library's streamed data sets have, as far as it is used."""

        column_names = ("id", "text")

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return Streamed({"text": x} for x in _TEXTS)

    stand_in = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    documents, rows = prepared(tmp_path, "hf:owner/name#en@test")
    assert documents == ended(_TEXTS)
    assert rows == []
    assert asked == [(("owner/name", "en"), {"split": "test", "streaming": True})]
    list(text_inputs.read("hf:name", Reading()))
    assert asked[1] == (("name", None), {"split": "train", "streaming": True})
    with pytest.raises(ValueError, match=r"hf:name has no field 'body', only \['id', 'text'\]"):
        list(text_inputs.read("hf:name", Reading(field="body")))


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("datasets", "hf:name", "`pip install datasets`, the extra `datasets`"),
        ("pyarrow", "a.parquet", "`pip install pyarrow`, the extra `text`"),
        ("pyarrow", "a.txt.zst", "`pip install pyarrow`, the extra `text`"),
    ],
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, module, source, message):
    monkeypatch.setitem(sys.modules, module, None)
    path = source if ":" in source else str(tmp_path / source)
    if ":" not in source:
        (tmp_path / source).write_bytes(b"x")
    with pytest.raises(ImportError, match=message):
        list(text_inputs.read(path, Reading()))


_MEASURED = """
import resource, sys
from data.prepare.text import text
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
text.prepare(sys.argv[1:3], sys.argv[3], "t", eval_share=0.0, log=lambda line: None)
print(peak() - before)
"""


def test_memory_stays_bounded(tmp_path):
    line = json.dumps({"text": "words and more words " * 47}) + "\n"
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", compresslevel=1) as file:
        for _ in range(150):
            file.write(line * 1000)  # 150 MB unpacked
    with gzip.open(tmp_path / "b.txt.gz", "wb", compresslevel=1) as file:
        for _ in range(150):
            file.write(b"a" * 2**20)  # one line
    paths = [str(tmp_path / name) for name in ("a.jsonl.gz", "b.txt.gz", "out")]
    # In a process of its own: the peak of this one may be higher already.
    command = [sys.executable, "-c", _MEASURED, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 70_000  # KB: a line's 16 MiB several times, and buffers
    assert len(open_store(tmp_path / "out/t/train")) == 150_000

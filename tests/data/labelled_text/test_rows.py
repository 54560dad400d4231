"""A user's own tables of labelled texts, good rows and bad."""

import csv
import gzip
import json

import numpy as np
import pytest

import data
from data.labelled_text import tables
from perceiver.text import tokenizer


def table(path, rows, header="text,label"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def good(tmp_path):
    """Forty rows whose text tells their number and their class."""
    return table(tmp_path / "t.csv", [f"row {i} is {'ab'[i % 2]},{'ab'[i % 2]}" for i in range(40)])


def read(config, split, train=False):
    """Returns [(text, label)] of one pass."""
    batches = data.load(config, split, batch_size=7, seed=0, train=train)
    found = []
    for batch in batches:
        for i in np.flatnonzero(batch["mask"]):
            ids = batch["tokens"][i][batch["input_mask"][i]]
            parts = np.split(ids, np.flatnonzero(ids == tokenizer.SEP))
            found.append((tuple(map(tokenizer.decode, parts)), batch["label"][i].item()))
    batches.close()
    return found


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_line_that_never_ends_is_refused(suffix, tmp_path, make_config, monkeypatch):
    monkeypatch.setattr(tables, "_MAX_LINE", 1000)
    path = tmp_path / f"t{suffix}.gz"
    path.write_bytes(gzip.compress(b"text,label\n" + b"x" * 5000))
    with pytest.raises(
        ValueError, match=r"line 2 has more than 1,000 characters: this is no table"
    ):
        data.info(make_config(source=f"rows:{path}"))


def test_a_tenth_of_each_class_is_held_out(good, make_config):
    config = make_config(source=f"rows:{good}")
    facts = data.info(config)
    assert facts.labels == ("a", "b")
    assert facts.examples == {"train": 36, "validation": 4}
    held_out, rest = read(config, "validation"), read(config, "train")
    assert sorted(label for _, label in held_out) == [0, 0, 1, 1]
    assert len({text for text, _ in rest + held_out}) == 40
    assert read(config, "validation") == held_out


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_classes_in_turns_are_all_in_validation(tmp_path, make_config, classes):
    path = table(tmp_path / "t.csv", [f"row {i},{i % classes}" for i in range(100)])
    found = read(make_config(source=f"rows:{path}"), "validation")
    assert np.bincount([label for _, label in found]).tolist() == [10 // classes] * classes


def test_a_class_that_validation_lacks_is_told(tmp_path, make_config, caplog):
    table(tmp_path / "train.csv", [f"row {i},{'abc'[i % 3]}" for i in range(9)])
    table(tmp_path / "validation.csv", ["x,a", "y,b"])
    data.info(make_config(source=f"rows:{tmp_path}"))
    assert "validation.csv: no row of 1 of the 3 classes (c ...)" in caplog.text


def test_a_folder_has_a_file_for_each_split_and_lines_may_be_json(tmp_path, make_config):
    records = [{"a": f"one {i}", "b": "two", "stars": i - 1} for i in range(11)]
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    table(tmp_path / "dev.tsv", ["x\ty\t9", "z\tw\t-1"], header="a\tb\tstars")
    config = make_config(source=f"rows:{tmp_path}", text_fields=("a", "b"), label_field="stars")
    # in the order of their values, not of their digits
    assert data.info(config).labels == ("-1", *map(str, range(10)))
    assert read(config, "validation") == [(("x", "y"), 10), (("z", "w"), 0)]
    table(tmp_path / "val.tsv", ["x\ty\t10"], header="a\tb\tstars")
    (tmp_path / "dev.tsv").unlink()
    with pytest.raises(ValueError, match=r"val\.tsv, line 2: no training row has the class '10'"):
        data.info(config)


def test_numbers_are_labels_of_a_regression(tmp_path, make_config):
    path = table(tmp_path / "t.csv", [f"row {i},{i / 8}" for i in range(20)] + ["row,much"])
    config = make_config(source=f"rows:{path}", regression=True)
    assert data.info(config).labels == ("score",)
    found = read(config, "validation")
    assert len(found) == 2
    for (text,), number in found:
        assert number == int(text.removeprefix("row ")) / 8
    spec = data.load(config, "train", batch_size=3, seed=0, train=True).spec
    assert spec["label"] == ((3,), np.float32)


def test_a_quoted_text_may_hold_commas_and_lines(tmp_path, make_config):
    rows = [f'"one, {i % 2}\nand ""more""",{"ab"[i % 2]}' for i in range(10)] + [",a"]
    path = table(tmp_path / "t.csv", rows)
    config = make_config(source=f"rows:{path}", broken_limit=0)
    # The empty text begins in line 22: a row before it spans two lines.
    with pytest.raises(ValueError, match=r"1 of 11 rows.*line 22: 'text' is empty"):
        data.info(config)
    config.broken_limit = 1
    assert sorted(read(config, "validation")) == [((f'one, {i}\nand "more"',), i) for i in (0, 1)]


@pytest.mark.parametrize("name", ["t.tsv", "t.txt", "t.TSV", "t.tsv.gz"])
def test_a_quotation_mark_between_tabs_is_text(tmp_path, make_config, name):
    rows = [f"{chr(34) * (i % 3 == 0)}row {i}\t{'ab'[i % 2]}" for i in range(60)]
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "wt") as file:
        file.write("\n".join(["text\tlabel", *rows]))
    config = make_config(source=f"rows:{tmp_path / name}")
    assert data.info(config).examples == {"train": 54, "validation": 6}
    texts = {text for split in ("train", "validation") for (text,), _ in read(config, split)}
    assert texts == {row.partition("\t")[0] for row in rows}


def test_a_table_whose_header_is_quoted_has_quoted_texts(tmp_path, make_config):
    rows = [f'"one\t{i % 2}\nand ""more"""\t"{"ab"[i % 2]}"' for i in range(10)]
    path = table(tmp_path / "t.tsv", rows, header='"text"\t"label"')
    found = read(make_config(source=f"rows:{path}"), "validation")
    assert sorted(found) == [((f'one\t{i}\nand "more"',), i) for i in (0, 1)]


def test_a_quoted_text_between_tabs_may_hold_lines(tmp_path, make_config):
    """As pandas writes them, beside quotation marks as people do."""
    texts = ['one\nand "more"', '"said', 'in "quotes"', '"all of it"', "plain", 'a "b""c']
    path = tmp_path / "t.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["text", "label"])
        for i in range(10):
            table.writerow([texts[0], "ab"[i % 2]])
            file.writelines(f"{text}\t{'ab'[i % 2]}\r\n" for text in texts[1:])
    config = make_config(source=f"rows:{path}", broken_limit=0)
    assert data.info(config).examples == {"train": 54, "validation": 6}
    found = {text for (text,), _ in read(config, "train")}
    assert found == set(texts)


def test_a_quote_that_swallows_a_row_is_told(tmp_path, make_config):
    rows = [f"row {i},{'ab'[i % 2]}" for i in range(20)]
    rows[4] = '"' + rows[4]
    rows[7] = '"' + rows[7]
    config = make_config(source=f"rows:{table(tmp_path / 't.csv', rows)}", broken_limit=0)
    with pytest.raises(ValueError, match=r"rows cannot be used.*line 6: .*expected after"):
        data.info(config)


@pytest.mark.parametrize(
    ("name", "header", "row", "encoding"),
    [
        ("t.csv", "text;label", "row, {};{}", "utf-8"),  # Excel where commas are decimal
        ("t.CSV", "text, label", "row {}, {}", "utf-8"),
        ("t.csv", "label\ttext", "{1}\trow {0}", "utf-8"),
        ("t.txt", "text\tlabel", "row {}\t{}", "utf-16"),  # Excel's "Unicode text"
        ("t.csv", "text,label", "row {},{}", "utf-8-sig"),
    ],
)
def test_tables_of_other_programs_are_read(tmp_path, make_config, name, header, row, encoding):
    lines = [header, *(row.format(i, "ab"[i % 2]) for i in range(20))]
    (tmp_path / name).write_text("\r\n".join(lines), encoding=encoding)
    config = make_config(source=f"rows:{tmp_path / name}")
    facts = data.info(config)
    assert (facts.labels, facts.examples) == (("a", "b"), {"train": 18, "validation": 2})
    for (text,), label in read(config, "train"):
        assert text.startswith("row")
        assert int(text.split()[-1]) % 2 == label


def test_a_table_without_names_says_so_once(tmp_path, make_config):
    path = table(tmp_path / "t.csv", ["fine,b"] * 20, header="good,a")
    message = r"no column 'text' or 'label': its first line.*'good', 'a'.*data\.text_fields"
    with pytest.raises(ValueError, match=message):
        data.info(make_config(source=f"rows:{path}", broken_limit=100))


@pytest.mark.parametrize("label", ["caf\ufffd", "NaN", "\ud83d"])
def test_labels_that_are_none_are_not_merged(tmp_path, make_config, label):
    records = [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(20)]
    records.append({"text": "row", "label": float("nan") if label == "NaN" else label})
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    config = make_config(source=f"rows:{tmp_path / 't.jsonl'}", broken_limit=1)
    assert data.info(config).labels == ("a", "b")
    config.broken_limit = 0
    with pytest.raises(
        ValueError, match=r"line 21: 'label' (is missing: nan|is not valid|has half)"
    ):
        data.info(config)


def test_half_a_character_is_told(tmp_path, make_config):
    records = [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(20)]
    records[3]["text"] = "smile \ud83d"
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    config = make_config(source=f"rows:{tmp_path / 't.jsonl'}", broken_limit=0)
    with pytest.raises(ValueError, match=r"line 4: 'text' has half a character"):
        data.info(config)


def test_names_of_a_class_may_be_composed_or_not(tmp_path, make_config):
    names = ("café", "cafe\u0301", "tea")
    rows = [f"row {i},{names[i % 3]}" for i in range(30)]
    config = make_config(source=f"rows:{table(tmp_path / 't.csv', rows)}")
    assert data.info(config).labels == ("café", "tea")


@pytest.mark.parametrize("content", [b"text,label\n", None])
def test_a_packed_table_that_is_broken_is_named(tmp_path, make_config, content):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(content or gzip.compress(b"text,label\n" + b"row,a\n" * 99)[:-12])
    with pytest.raises(ValueError, match=r"t\.csv\.gz cannot be read to its end: .*pack it again"):
        data.info(make_config(source=f"rows:{path}"))


def test_bad_rows_are_named_counted_and_left_out(tmp_path, make_config, caplog):
    lines = [json.dumps({"text": f"row {i}", "label": "ab"[i % 2]}).encode() for i in range(20)]
    lines += [
        b'{"text": "unfinished',
        b"[1, 2]",
        b'{"label": "a"}',
        b'{"text": "no label"}',
        b'{"text": 3, "label": "a"}',
        b'{"text": " ", "label": "a"}',
        b'{"text": "broken \xff", "label": "a"}',
        b'{"text": "nested", "label": ["a"]}',
        b"",
    ]
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n".join(lines))
    config = make_config(source=f"rows:{path}", broken_limit=8)
    assert data.info(config).examples == {"train": 18, "validation": 2}
    (told,) = [record.message for record in caplog.records]
    assert "8 of 28 rows cannot be used: line 21: not JSON" in told
    assert "line 22: not a JSON object; line 23: no field 'text', only label" in told
    config.broken_limit = 7
    with pytest.raises(ValueError, match=r"data\.broken_limit is 7"):
        data.info(config)


def test_a_row_of_too_many_or_too_large_cells_is_left_out(tmp_path, make_config):
    csv.field_size_limit(2**30)  # as SciPy or the preparation of texts leaves it
    rows = [f"row {i},{'ab'[i % 2]}" for i in range(10)]
    path = table(tmp_path / "t.csv", [*rows, "one,two,three", "x" * 200_000 + ",a", "last,a"])
    config = make_config(source=f"rows:{path}", broken_limit=1)
    message = r"2 of 13 rows.*line 12: 3 cells, but the header has 2; line 13: field larger"
    with pytest.raises(ValueError, match=message):
        data.info(config)


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        (["x,a"] * 20, {}, "only one class, 'a'.*data.regression=True"),
        (["x,a", "y,b"], {}, "no usable rows for validation"),
        ([",a"] * 3, {}, "no usable row"),
        (["x,a"] * 20, {"text_fields": ("body",), "broken_limit": 3}, "no column 'body'"),
    ],
)
def test_a_file_that_cannot_serve_is_refused(tmp_path, make_config, rows, fields, message):
    path = table(tmp_path / "t.csv", rows)
    with pytest.raises(ValueError, match=message):
        data.info(make_config(source=f"rows:{path}", **fields))


def test_what_is_no_table_is_refused(tmp_path, make_config):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        data.info(make_config(source=f"rows:{tmp_path / 'none.csv'}"))
    (tmp_path / "t.docx").write_text("x")
    with pytest.raises(ValueError, match=r"not a \.csv, \.tsv, \.txt, \.jsonl"):
        data.info(make_config(source=f"rows:{tmp_path / 't.docx'}"))
    with pytest.raises(FileNotFoundError, match="has no train file"):
        data.info(make_config(source=f"rows:{tmp_path}"))

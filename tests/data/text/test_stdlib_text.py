import sysconfig
from pathlib import Path

import pytest

import data
from data.text import stdlib_text


def write(root, files):
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def test_corpus_takes_written_text_and_nothing_else(tmp_path):
    used = {"a.py": b"x = 1\n", "idlelib/help.html": b"<p>", "lib2to3/Grammar.txt": b"a: b"}
    unused = {
        "test/test_a.py": b"1",
        "unittest/test/b.py": b"2",
        "site-packages/c.py": b"3",
        "__pycache__/d.py": b"4",
        "_sysconfigdata__linux.py": b"5",
        "empty.py": b"",
        "picture.gif": b"6",
        "encodings/cp037.py": b'""" Codec generated from "CP037.TXT" with gencodec.py. """',
    }
    write(tmp_path, used | unused)
    (tmp_path / "link.py").symlink_to(tmp_path / "test" / "test_a.py")
    assert stdlib_text.corpus(tmp_path) == used
    assert list(stdlib_text.corpus(tmp_path)) == sorted(used)


def test_identical_files_count_once(tmp_path):
    write(tmp_path, {"z.py": b"same", "a/b.py": b"same", "c.py": b"other"})
    assert stdlib_text.corpus(tmp_path) == {"a/b.py": b"same", "c.py": b"other"}


def test_missing_library_says_so(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            FileNotFoundError, match="no source files of the Python standard library"
        ):
            stdlib_text.corpus(root)


@pytest.fixture(scope="module")
def documents():
    return stdlib_text.corpus(Path(sysconfig.get_path("stdlib")))


def test_no_content_is_in_both_splits(documents):
    sides = {split: set() for split in data.SPLITS}
    for path, content in documents.items():
        sides[stdlib_text.split_of(path)].add(content)
    assert not sides["train"] & sides["validation"]
    assert sum(map(len, sides.values())) == len(documents)


def test_splits_have_the_stated_sizes(documents):
    held_out = sum(stdlib_text.split_of(path) == "validation" for path in documents)
    assert abs(held_out / len(documents) - 0.1) < 4 * (0.1 * 0.9 / len(documents)) ** 0.5
    sizes = {split: len(stdlib_text.read(split)) for split in data.SPLITS}
    assert sizes["train"] > 5e6
    assert sizes["validation"] > 3e5


def test_split_of_a_path_never_changes():
    sides = {path: stdlib_text.split_of(path) for path in ("os.py", "uuid.py", "lib2to3/pytree.py")}
    assert sides == {"os.py": "train", "uuid.py": "validation", "lib2to3/pytree.py": "validation"}


def test_stream_is_the_documents_of_its_split(documents):
    for split in data.SPLITS:
        stream = stdlib_text.read(split)
        assert not stream.flags.writeable
        chosen = [
            content for path, content in documents.items() if stdlib_text.split_of(path) == split
        ]
        assert stream.tobytes() == b"\n".join(chosen)


def test_info_counts_windows(make_config):
    config = make_config(source="stdlib_text", seq_len=1021)
    info = data.info(config)
    assert info.labels is None
    for split, train in (("train", True), ("validation", False)):
        batches = data.load(config, split, batch_size=2, seed=0, train=train)
        assert info.examples[split] == batches.num_examples

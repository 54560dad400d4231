import pickle

import numpy as np
import pytest

from data.text.text_store import open_store

_DOCUMENTS = [b"one ", "zw\u00f6lf\n".encode(), b"", b"a longer text\n"]


def test_documents_come_back(tmp_path, write_store):
    store = open_store(write_store(tmp_path / "s", _DOCUMENTS))
    assert len(store) == 4
    assert [store.document(i).tobytes() for i in range(4)] == _DOCUMENTS
    assert store.bytes.tobytes() == b"".join(_DOCUMENTS)
    assert not store.bytes.flags.writeable
    with pytest.raises(IndexError, match=r"document 4 is outside 0\.\.3"):
        store.document(4)


def test_an_empty_store_opens(tmp_path, write_store):
    store = open_store(write_store(tmp_path / "s", []))
    assert len(store) == len(store.bytes) == 0


def test_a_pickled_store_maps_its_files_again(tmp_path, write_store):
    store = open_store(write_store(tmp_path / "s", [bytes(70_001)]))
    content = pickle.dumps(store)
    assert len(content) < 1_000
    assert isinstance(pickle.loads(content).bytes, np.memmap)


def test_what_is_missing_is_named(tmp_path, write_store):
    folder = write_store(tmp_path / "s", _DOCUMENTS)
    (folder / "documents.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"it lacks documents\.npy; create one with"):
        open_store(folder)


@pytest.mark.parametrize("starts", [[0, 4], [], [[0], [25]], [0, 20, 9, 25], [-3, 9, 25]])
def test_files_that_do_not_belong_together(tmp_path, write_store, starts):
    folder = write_store(tmp_path / "s", _DOCUMENTS)
    np.save(folder / "documents.npy", np.array(starts, np.int64))
    with pytest.raises(ValueError, match=r"documents\.npy does not match the 25 bytes"):
        open_store(folder)

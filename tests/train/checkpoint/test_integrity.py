import pytest

from train.checkpoint import integrity


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "array").write_bytes(bytes(range(256)) * 3)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "log").write_bytes(b"changes later")
    integrity.seal(tmp_path, leave_out=("log",))
    return tmp_path


def test_an_untouched_folder_is_whole(sealed):
    (sealed / "log").write_bytes(b"changed")
    (sealed / "inner" / "new").write_bytes(b"unknown")
    assert integrity.find_damage(sealed) is None


@pytest.mark.parametrize("position", [0, 255, 767])
def test_each_flipped_bit_shows(sealed, position):
    path = sealed / "inner" / "array"
    content = path.read_bytes()
    for bit in range(8):
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        path.write_bytes(changed)
        assert integrity.find_damage(sealed).startswith("inner/array has 768 bytes, crc32")


def test_truncation_growth_and_loss_show(sealed):
    path = sealed / "inner" / "array"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert "inner/array has 767 bytes" in integrity.find_damage(sealed)
    path.write_bytes(content)
    (sealed / "empty").write_bytes(b"\0")
    assert "empty has 1 bytes" in integrity.find_damage(sealed)
    path.unlink()
    (sealed / "empty").unlink()
    assert integrity.find_damage(sealed) == "empty is missing"


@pytest.mark.parametrize("content", [None, b"", b'{"inner/array": "768 by', b"\xff\xfe"])
def test_damage_to_the_seal_shows(sealed, content):
    seal = sealed / integrity.CHECKSUMS
    if content is None:
        seal.unlink()
    else:
        seal.write_bytes(content)
    assert integrity.CHECKSUMS in integrity.find_damage(sealed)


def test_what_cannot_be_read_shows(sealed):
    path = sealed / "inner" / "array"
    path.unlink()
    path.mkdir()
    assert "inner/array cannot be read" in integrity.find_damage(sealed)
    (sealed / integrity.CHECKSUMS).write_text('{"/dev/zero": "0 bytes"}')  # which never ends
    assert "names a file elsewhere: '/dev/zero'" in integrity.find_damage(sealed)
    (sealed / integrity.CHECKSUMS).write_text('{"x": ' + "[" * 100_000)
    assert "nested too deeply" in integrity.find_damage(sealed)
    (sealed / integrity.CHECKSUMS).write_text("[1, 2]")
    assert "checksums.json: broken file: JSON, but not an object" in integrity.find_damage(sealed)


def test_a_seal_that_does_not_read_back_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "array").write_bytes(b"content")
    write = type(tmp_path).write_text
    monkeypatch.setattr(type(tmp_path), "write_text", lambda path, text: write(path, "{}"))
    with pytest.raises(OSError, match=r"checksums.json does not read back as it was written"):
        integrity.seal(tmp_path)

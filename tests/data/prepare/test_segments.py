"""AudioSet's tables, and the files that belong to them."""

import pytest

from data.prepare.clips import media_index, segments
from perceiver.media import labels

CLASSES = {mid: i for i, mid in enumerate(labels.audioset_mids())}
HEADER = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804
# YTID, start_seconds, end_seconds, positive_labels
"""


def _table(tmp_path, text, name="eval_segments.csv"):
    (tmp_path / name).write_text(HEADER + text)
    return tmp_path / name


def test_the_official_form(tmp_path):
    text = (
        '--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk"\n'
        'zzya4dDVRLk, 30.500, 40.500, "/m/09x0r"\n'
    )
    first, second = segments.read(_table(tmp_path, text), CLASSES)
    assert first == segments.Segment("--4gqARaEJE", 0.0, 10.0, (72, 73, 74, 361))
    assert (second.clip, second.seconds, second.labels) == ("zzya4dDVRLk_30.500", 10.0, (0,))


def test_names_of_splits():
    assert segments.split_name("/x/unbalanced_train_segments.csv") == "unbalanced_train"
    assert segments.split_name("mine.csv") == "mine"
    with pytest.raises(ValueError, match="rename it to lowercase letters"):
        segments.split_name("My set.csv")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abc, 0.0, 10.0", "line 4: expected .*, got 3 fields"),
        ('abc, 0, 10, "/m/09x0r,/m/none"', "line 4: '/m/none' not among the 527 known classes"),
        ('abc, 0, 10, ""', "line 4: '' not among"),
        ('abc, zero, 10, "/m/09x0r"', "line 4: start 'zero'"),
        ('abc, 10, 10, "/m/09x0r"', "line 4: the segment from 10 to 10 s is empty"),
        ('abc, nan, 10, "/m/09x0r"', "line 4: the segment from nan"),
        ('abc, -1, 10, "/m/09x0r"', "line 4: the segment from -1"),
        ('../abc, 0, 10, "/m/09x0r"', "line 4: '../abc' is not a video id"),
        ('abc, 0, 10, "/m/09x0r"\nabc, 0, 9, "/m/09x0r"', "line 5: abc_0.000 appears twice"),
        ('abc, 0, 10, "/m/09x0r', "line 4: unexpected end of data"),
        ("", "has no segments"),
    ],
)
def test_errors_name_file_and_line(tmp_path, line, message):
    file = _table(tmp_path, line)
    with pytest.raises(ValueError, match=message) as error:
        segments.read(file, CLASSES)
    assert str(file) in str(error.value)


def test_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        segments.read(tmp_path / "x.csv", CLASSES)


def test_a_table_of_classes(tmp_path):
    lines = 'index,mid,display_name\n0,/m/a,"Male speech, man speaking"\n1,/m/b,Wind\n'
    (tmp_path / "c.csv").write_text(lines)
    assert segments.read_classes(tmp_path / "c.csv") == (
        ["/m/a", "/m/b"],
        ["Male speech, man speaking", "Wind"],
    )
    for text, message in {
        lines + "3,/m/c,C\n": "line 4: expected `2,MID,display name`",
        lines + "2,/m/a,C\n": r"line 4: class \['/m/a', 'C'\] appears twice",
        lines + "2,/m/c,Wind\n": "line 4: .* appears twice",
        "index,mid,display_name\n": "has no classes",
    }.items():
        (tmp_path / "c.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            segments.read_classes(tmp_path / "c.csv")


def test_audiosets_classes():
    names, mids = labels.audioset(), labels.audioset_mids()
    assert len(names) == len(set(names)) == len(set(mids)) == 527
    assert [names[i] for i in (0, 1, 109, 526)] == [
        "Speech",
        "Male speech, man speaking",
        "Roaring cats (lions, tigers)",
        "Field recording",
    ]
    assert (mids[0], mids[137], mids[526]) == ("/m/09x0r", "/m/04rlf", "/m/07hvw1")
    assert all(mid.startswith(("/m/", "/t/dd", "/g/")) for mid in mids)
    assert segments.read_classes(None) == (mids, names)


ID = "-b_12345_67"  # as ids may be


@pytest.mark.parametrize(
    ("name", "is_cut"),
    [
        (f"{ID}.mp4", False),
        (f"Y{ID}.WAV", False),
        (f"{ID}_30.mkv", True),
        (f"{ID}_30.000.flac", True),
        (f"{ID}_30.000_40.000.webm", True),
        (f"{ID}_30000_40000.m4a", True),
        (f"below/further/Y{ID}_30_40.ogg", True),
        (f"{ID}_31.mp4", None),
        (f"{ID}_30.00.part", None),
        (f"{ID}x.mp4", None),
        (f"x{ID}.mp4", None),
    ],
)
def test_names_of_files(tmp_path, name, is_cut):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    found = media_index.MediaIndex(tmp_path, {ID}).find(segments.Segment(ID, 30.0, 40.0, ()))
    if is_cut is None:
        assert found is None
    else:
        assert found.path == name
        assert (found.start is not None) == is_cut


def test_the_clip_goes_before_the_video_and_picture_before_sound(tmp_path):
    for name in (f"{ID}.mp4", f"{ID}_30.wav", f"{ID}_30.webm", f"{ID}_50.mp4"):
        (tmp_path / name).touch()
    index = media_index.MediaIndex(tmp_path, {ID})
    found = {s: index.find(segments.Segment(ID, s, s + 10, ())).path for s in (0.0, 30.0, 50.0)}
    assert found == {0.0: f"{ID}.mp4", 30.0: f"{ID}_30.webm", 50.0: f"{ID}_50.mp4"}

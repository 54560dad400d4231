import types

from train.guard.broken_examples import BrokenExamples


def split(**reasons):
    return types.SimpleNamespace(broken={int(key[1:]): value for key, value in reasons.items()})


def test_each_broken_example_is_said_once_and_all_at_the_end():
    lines = []
    broken = BrokenExamples(lines.append)
    broken.log_new("training", split())
    broken.log_new("training", split(_17="n01440764_18.JPEG: cut short"))
    again = split(_17="n01440764_18.JPEG: cut short", _3="b.JPEG: no picture: 0 bytes")
    broken.log_new("training", again)
    broken.log_new("validation", split(_3="c.JPEG: cut short"))
    broken.log_new("validation", split(_3="c.JPEG: cut short"))
    assert lines == [
        "broken training example, skipped: n01440764_18.JPEG: cut short",
        "broken training example, skipped: b.JPEG: no picture: 0 bytes",
        "broken validation example, skipped: c.JPEG: cut short",
    ]
    lines.clear()
    broken.summarise()
    assert lines == ["3 broken examples were skipped: n01440764_18.JPEG, b.JPEG, c.JPEG"]


def test_a_sound_data_set_gives_no_summary_and_one_example_the_singular():
    lines = []
    broken = BrokenExamples(lines.append)
    broken.summarise()
    assert lines == []
    broken.log_new("training", split(_5="e.JPEG: cut short"))
    broken.summarise()
    assert lines[-1] == "1 broken example was skipped: e.JPEG"


def test_a_long_summary_is_cut():
    lines = []
    broken = BrokenExamples(lines.append)
    broken.log_new("training", types.SimpleNamespace(broken={i: f"{i}.png: no" for i in range(23)}))
    broken.summarise()
    assert lines[-1].startswith("23 broken examples were skipped: 0.png, 1.png, ")
    assert lines[-1].endswith(", 19.png and 3 more")

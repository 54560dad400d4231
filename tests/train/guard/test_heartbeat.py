import dataclasses

import pytest

from train.guard import heartbeat
from train.guard.heartbeat import Heartbeat, read, suspects, write

NOW = 1_000_000.0


def beat(process, phase="step", step=17, since=93.0, ago=1.0):
    return Heartbeat(
        process=process,
        host=f"worker-{process}",
        pid=4241 + process,
        phase=phase,
        step=step,
        since=NOW - since,
        time=NOW - ago,
    )


def told(*beats, processes=None):
    by_process = {x.process: x for x in beats}
    return suspects(by_process, processes or len(beats), NOW)


def test_what_is_written_is_read(tmp_path):
    beats = [beat(0), beat(1, "data", ago=9.0)]
    for one in beats:
        write(tmp_path / "hosts", one)
    write(tmp_path / "hosts", dataclasses.replace(beats[0], step=18))
    found = read(tmp_path / "hosts", 3)
    assert found == {0: dataclasses.replace(beats[0], step=18), 1: beats[1]}
    assert sorted(path.name for path in (tmp_path / "hosts").iterdir()) == ["0.json", "1.json"]


def test_other_lives_other_sizes_and_nonsense_are_passed_over(tmp_path):
    write(tmp_path, beat(0, ago=heartbeat.QUIET + 1))
    write(tmp_path, beat(1))
    write(tmp_path, beat(5))
    (tmp_path / "2.json").write_text('{"half')
    (tmp_path / "3.json").write_text('{"process": 3, "of another version": 1}')
    assert list(read(tmp_path, 4, born=NOW)) == [1]
    assert read(tmp_path / "nowhere", 4) == {}


@pytest.mark.parametrize(
    ("beats", "words"),
    [
        (
            [beat(0), beat(1, "data")],
            "host 1 (worker-1, process 4242) has been in 'data' of step 17 for 93 s",
        ),
        (
            [beat(0, step=18), beat(1, step=18), beat(2, "evaluate", since=5.0)],
            "host 2 (worker-2, process 4243) has been in 'evaluate' of step 17 for 5 s",
        ),
        (
            [beat(0), beat(1, ago=60.0)],
            "host 1 (worker-1, process 4242) has been silent for 60 s, last seen in 'step' of "
            "step 17",
        ),
        (
            [beat(0), beat(1, "ended", step=16, ago=60.0)],
            "host 1 (worker-1, process 4242) has ended at step 16",
        ),
        (
            [beat(0), beat(1)],
            "all 2 hosts are at the same point: host 0 (worker-0, process 4241) has been in 'step' "
            "of step 17 for 93 s",
        ),
    ],
)
def test_who_is_behind(beats, words):
    assert told(*beats) == words


def test_who_left_no_sign_is_named_by_number():
    assert told(beat(0), processes=2) == "host 1 has written no heartbeat to the run's folder"
    both = told(beat(0), beat(1, "data"), processes=3)
    assert both == (
        "host 1 (worker-1, process 4242) has been in 'data' of step 17 for 93 s; "
        "host 2 has written no heartbeat to the run's folder"
    )


def test_a_long_list_is_cut_short():
    line = told(*(beat(i, "data") for i in range(20)), *(beat(i) for i in range(20, 24)))
    assert line.count("has been in 'data'") == 8
    assert line.endswith("; and 12 more")

"""Synthetic scenes: what their labels promise is what can be seen and heard."""

import collections
import csv
import dataclasses

import numpy as np
import pytest

from data.clips import scene_pictures, scene_plans, scene_sounds
from data.prepare.synthetic import scenes
from perceiver.media import video_files

FRAMES, SIDE, RATE = 50, 40, 25
SAMPLES, SAMPLE_RATE = 96_000, 48_000
PLAN = scene_plans.ScenePlan("disk", "sliding", "tone", "steady", (), seed=(3, 5))


def draw(**changes):
    plan = dataclasses.replace(PLAN, **changes)
    return scene_pictures.draw(plan, FRAMES, SIDE, RATE)


def hear(**changes):
    return scene_sounds.make(dataclasses.replace(PLAN, **changes), SAMPLES, SAMPLE_RATE)


def test_neither_sight_nor_sound_says_anything_of_a_pair():
    plans = scene_plans.draw(90, (0, 1))
    for given in ("motion", "rhythm"):
        counts = collections.Counter((getattr(p, given), p.labels[-1]) for p in plans)
        assert set(counts.values()) == {10}  # each of nine
    # Together they say all.
    assert len({(p.motion, p.rhythm, p.labels[-1]) for p in plans}) == 9


def test_all_classes_occur_and_belong_to_one_group():
    plans = scene_plans.draw(90, (0, 1))
    assert {label for p in plans for label in p.labels} == set(scene_plans.CLASSES)
    assert len(set(scene_plans.CLASSES)) == len(scene_plans.CLASSES) == 20
    assert plans == scene_plans.draw(90, (0, 1))
    assert plans != scene_plans.draw(90, (1, 1))


def test_a_count_that_cannot_be_balanced_is_refused():
    with pytest.raises(ValueError, match=r"10 scenes .* multiple of 9"):
        scene_plans.draw(10, (0,))


def test_sight_does_not_depend_on_voice_or_rhythm_nor_sound_on_the_object():
    np.testing.assert_array_equal(draw(), draw(voice="hiss", rhythm="fast"))
    np.testing.assert_array_equal(hear(), hear(shape="ring", motion="growing"))
    assert (draw() != draw(seed=(3, 7))).any()
    assert (hear() != hear(seed=(3, 7))).any()


def covers(**changes):
    """Where the object is: [T, H, W], for it is light and the ground is dark."""
    return draw(**changes).mean(axis=-1) > (scene_pictures.LIGHT[0] + scene_pictures.DARK[1]) / 2


@pytest.mark.parametrize("seed", range(5))
def test_an_object_moves_as_its_class_says(seed):
    spreads = {}
    for motion in scene_plans.MOTIONS:
        cover = covers(motion=motion, seed=(seed, 11))
        size = cover.sum(axis=(1, 2))
        across = (cover.sum(axis=1) * np.arange(SIDE)).sum(axis=1) / size
        down = (cover.sum(axis=2) * np.arange(SIDE)).sum(axis=1) / size
        spreads[motion] = {
            "sliding": across.std(),
            "bouncing": down.std(),
            "growing": size.std() / size.mean() * SIDE / 4,
        }
    for motion, found in spreads.items():
        assert max(found, key=found.get) == motion


@pytest.mark.parametrize(
    ("rhythm", "low", "high"), [("slow", *scene_sounds.RATES["slow"]), ("fast", 6.5, 8.0)]
)
@pytest.mark.parametrize("voice", scene_plans.VOICES)
def test_a_voice_beats_as_its_rhythm_says(voice, rhythm, low, high):
    loudness = np.square(hear(voice=voice, rhythm=rhythm)).reshape(-1, 480).mean(axis=1)
    spectrum = np.abs(np.fft.rfft(loudness - loudness.mean()))
    beat = spectrum.argmax() * SAMPLE_RATE / SAMPLES
    assert low - 0.5 <= beat <= high + 0.5
    steady = np.square(hear(voice=voice)).reshape(-1, 4_800).mean(axis=1)
    assert steady.std() < 0.3 * steady.mean()


@pytest.mark.parametrize("event", scene_plans.EVENTS)
def test_an_event_is_seen_and_heard(event):
    assert np.abs(draw(events=(event,)).astype(int) - draw()).mean() > 2
    change = hear(events=(event,)) - hear()
    level = np.sqrt(np.mean(change**2))
    assert 0.5 * scene_sounds.EVENT < level < 1.5 * scene_sounds.EVENT
    assert np.abs(hear(events=scene_plans.EVENTS)).max() <= 1


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return folder, write(folder)


def write(folder, seed=0, log=print):
    counts = {"balanced_train": 9, "eval": 9}
    return scenes.write(folder, counts=counts, seed=seed, seconds=0.4, processes=1, log=log)


def test_files_are_what_was_drawn(files):
    _, written = files
    rows = [line for line in written.csvs[1].read_text().splitlines() if line[0] != "#"]
    for row, plan in zip(rows, scene_plans.draw(9, (0, 1)), strict=True):
        name, start, end, codes = next(csv.reader([row], skipinitialspace=True))
        assert (float(start), float(end), len(name)) == (0, 0.4, 11)
        assert codes == ",".join(f"/scene/{label.replace(' ', '_')}" for label in plan.labels)
    video, audio = video_files.read(
        written.clips / f"{name}.mp4",
        (scenes.SIDE, scenes.SIDE),
        frames_per_second=RATE,
        sample_rate=SAMPLE_RATE,
    )
    drawn = scene_pictures.draw(plan, 10, scenes.SIDE, RATE)
    assert np.abs(video.astype(int) - drawn).mean() < 12  # H.264 halves the colours
    made = scene_sounds.make(plan, 19_200, SAMPLE_RATE)
    assert np.corrcoef(audio, made)[0, 1] > 0.9


def test_the_list_of_labels_is_audiosets_form(files):
    with files[1].labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["display_name"] for row in rows] == list(scene_plans.CLASSES)
    assert [int(row["index"]) for row in rows] == list(range(20))
    assert rows[0]["mid"] == "/scene/shape_disk"


def test_what_is_there_is_kept_and_other_settings_are_refused(files):
    folder, written = files
    one, *rest = sorted(written.clips.iterdir())
    before = {path: path.stat().st_mtime_ns for path in rest}
    one.unlink()
    said = []
    write(folder, log=said.append)
    assert "1 of 18 media files" in said[0]
    assert one.exists()
    assert before == {path: path.stat().st_mtime_ns for path in rest}
    with pytest.raises(ValueError, match="scenes made with other settings"):
        write(folder, seed=1)

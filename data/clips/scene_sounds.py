"""Makes what is heard of a synthetic scene: a voice in a rhythm, events beneath it."""

import math

import numpy as np

from data.clips.scene_plans import EVENTS, ScenePlan

RATES = {"slow": (1.7, 2.2), "fast": (6.5, 8.0)}  # beats a second
VOICE = 0.25  # amplitude, root mean square
EVENT = 0.06  # an event is fainter: sight tells of it first
_STREAM = 2  # sight and sound draw from streams of their own


def make(plan: ScenePlan, samples: int, sample_rate: int) -> np.ndarray:
    """Returns the sound, float32 [S] in [-1, 1]; what is seen of the plan changes nothing."""
    rng = np.random.default_rng((*plan.seed, _STREAM))
    times = np.arange(samples) / sample_rate
    voice = _VOICES[plan.voice](times, rng) * _gate(plan.rhythm, times, rng)
    sound = _level(voice, VOICE * rng.uniform(0.6, 1.2))
    for event in plan.events:
        draws = np.random.default_rng((*plan.seed, _STREAM, EVENTS.index(event)))
        sound = sound + _level(_EVENTS[event](times, draws), EVENT * draws.uniform(0.7, 1.3))
    return np.clip(sound + 0.001 * rng.standard_normal(samples), -1, 1).astype(np.float32)


def _level(sound: np.ndarray, amplitude: float) -> np.ndarray:
    return sound * (amplitude / np.sqrt(np.mean(sound**2)))


def _gate(rhythm: str, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rhythm's loudness over time, with soft edges: half of each beat sounds."""
    if rhythm == "steady":
        return np.ones_like(times)
    beat = np.sin(2 * math.pi * (times * rng.uniform(*RATES[rhythm]) + rng.random()))
    return np.clip(0.5 + 4 * beat, 0.02, 1)


def _tone(times, rng):
    return np.sin(2 * math.pi * rng.uniform(400, 1_200) * times)


def _buzz(times, rng):
    return 2 * np.mod(rng.uniform(120, 260) * times, 1) - 1


def _hiss(times, rng):
    return rng.standard_normal(len(times))


def _chirp(times, rng):
    """Rises from 500 to 3,000 Hz or so, again and again."""
    low, high, period = rng.uniform(400, 700), rng.uniform(2_500, 4_000), rng.uniform(0.1, 0.14)
    place = np.mod(times / period + rng.random(), 1)
    return np.sin(2 * math.pi * period * (low * place + (high - low) * place**2 / 2))


def _bell(times, rng):
    """Of the lamp: a high pure tone."""
    return np.sin(2 * math.pi * rng.uniform(6_000, 8_000) * times)


def _patter(times, rng):
    """Of the rain: some thirty drops a second, each a high tone that dies away in milliseconds."""
    ringing = np.exp(-times[:480] * 600) * np.sin(2 * math.pi * 5_000 * times[:480])
    sound = np.zeros(len(times) + len(ringing))
    for place in rng.integers(len(times), size=1 + round(30 * times[-1])):
        sound[place : place + len(ringing)] += ringing
    return sound[: len(times)]


def _rumble(times, rng):
    """Of the shade: two very low tones."""
    low, high = rng.uniform(45, 60), rng.uniform(70, 90)
    return np.sin(2 * math.pi * low * times) + np.sin(2 * math.pi * high * times)


_VOICES = {"tone": _tone, "buzz": _buzz, "hiss": _hiss, "chirp": _chirp}
_EVENTS = {"lamp": _bell, "rain": _patter, "shade": _rumble}

"""What is in a synthetic scene: seen attributes, heard attributes, and the classes they make.

A scene shows one object, a shape that moves in its way, and lets one voice be heard, in its rhythm;
events are seen and heard together. Its classes fall into four groups:

    sight   the shape, and the motion: nothing of them is heard
    sound   the voice, and the rhythm: nothing of them is seen
    either  the events: sight or sound suffices
    both    whether the rhythm matches the motion (one for each difference of their numbers, modulo
            3): every motion goes with every rhythm equally often, so that sight alone, or sound
            alone, says nothing about it
"""

import dataclasses

import numpy as np

SHAPES = ("disk", "ring", "cross", "bars")
MOTIONS = ("sliding", "bouncing", "growing")
VOICES = ("tone", "buzz", "hiss", "chirp")
RHYTHMS = ("steady", "slow", "fast")
EVENTS = ("lamp", "rain", "shade")
MATCHES = ("matched", "ahead", "behind")  # (rhythm - motion) mod 3 = 0, 1, 2
EVENT_RATE = 0.35  # of scenes, for each event by itself

GROUPS = {
    "sight": tuple(f"shape {x}" for x in SHAPES) + tuple(f"motion {x}" for x in MOTIONS),
    "sound": tuple(f"voice {x}" for x in VOICES) + tuple(f"rhythm {x}" for x in RHYTHMS),
    "either": tuple(f"event {x}" for x in EVENTS),
    "both": tuple(f"pair {x}" for x in MATCHES),
}
CLASSES = tuple(name for names in GROUPS.values() for name in names)


@dataclasses.dataclass(frozen=True)
class ScenePlan:
    """One scene; everything that its labels do not say is drawn with `seed`."""

    shape: str
    motion: str
    voice: str
    rhythm: str
    events: tuple[str, ...]
    seed: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its classes."""
        match = (RHYTHMS.index(self.rhythm) - MOTIONS.index(self.motion)) % len(MATCHES)
        return (
            f"shape {self.shape}",
            f"motion {self.motion}",
            f"voice {self.voice}",
            f"rhythm {self.rhythm}",
            *(f"event {event}" for event in self.events),
            f"pair {MATCHES[match]}",
        )


def draw(count: int, seed: tuple[int, ...]) -> list[ScenePlan]:
    """Returns scenes in random order; motions and rhythms go together equally often.

    Raises:
      ValueError: a count that is no multiple of nine, their combinations.
    """
    combinations = len(MOTIONS) * len(RHYTHMS)
    if count < 1 or count % combinations:
        raise ValueError(
            f"{count} scenes cannot hold all {combinations} combinations of motion and rhythm "
            f"equally often: choose a multiple of {combinations}"
        )
    rng = np.random.default_rng(seed)
    # Orders of their own: a shape, a voice and a combination are independent of each other.
    combined, shapes, voices = (rng.permutation(count) for _ in range(3))
    events = rng.random((count, len(EVENTS))) < EVENT_RATE
    return [
        ScenePlan(
            shape=SHAPES[shapes[i] % len(SHAPES)],
            motion=MOTIONS[combined[i] % len(MOTIONS)],
            voice=VOICES[voices[i] % len(VOICES)],
            rhythm=RHYTHMS[combined[i] // len(MOTIONS) % len(RHYTHMS)],
            events=tuple(name for name, is_on in zip(EVENTS, events[i], strict=True) if is_on),
            seed=(*seed, i),
        )
        for i in range(count)
    ]

"""Writes `mel.npz`: sound, and its log-mel spectrogram as librosa computes it.

pip install librosa && python tests/golden/make_mel.py
"""

import pathlib

import numpy as np

FILE = pathlib.Path(__file__).parent / "mel.npz"
SETTINGS = {"sample_rate": 48000, "window": 2048, "hop": 1024, "bins": 80}


def sound(samples: int) -> np.ndarray:
    """Returns float32 [2, S]: a rising tone over soft noise; a click in digital silence."""
    time = np.arange(samples) / SETTINGS["sample_rate"]
    tone = 0.5 * np.sin(2 * np.pi * (200 + 6000 * time) * time)
    noise = 0.01 * np.random.RandomState(5).standard_normal(samples)
    click = np.zeros(samples)
    click[samples // 3] = 0.9
    return np.stack([tone + noise, click]).astype(np.float32)


def by_librosa(audio: np.ndarray, settings: dict[str, int]) -> np.ndarray:
    """Returns the log-mel spectrogram [B, T, bins] in decibels of sound [B, S]."""
    import librosa

    overhang = (settings["window"] - settings["hop"]) // 2
    power = librosa.feature.melspectrogram(
        y=np.pad(audio, ((0, 0), (overhang, overhang)), mode="reflect"),
        sr=settings["sample_rate"],
        n_fft=settings["window"],
        hop_length=settings["hop"],
        n_mels=settings["bins"],
        center=False,  # padded above, by half an overlap: one frame for each hop
    )
    return librosa.power_to_db(power, top_db=None).swapaxes(1, 2)


if __name__ == "__main__":
    AUDIO = sound(9 * SETTINGS["hop"])
    np.savez_compressed(FILE, audio=AUDIO, decibels=by_librosa(AUDIO, SETTINGS))

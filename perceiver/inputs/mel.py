"""Sound -> log-mel spectrogram, within the model: the same sound serves raw and mel models.

As librosa computes it (`librosa.feature.melspectrogram`, then `power_to_db` with `top_db=None`):
periodic Hann windows, power, Slaney's mel scale with filters of equal area, decibels. There is one
frame for each hop, centred on it: the sound is reflected at both ends by half of what a window is
longer than a hop. So 61,440 samples at a hop of 1,024 give 60 frames, with 80 bins the 4,800
inputs of Perceiver, section 4.2, which does not tell its windows, hops, or bins.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

FLOOR = 1e-10  # power: -100 dB, digital silence
_HERTZ_PER_MEL = 200 / 3  # of Slaney's scale below 1 kHz, where it is linear
_LINEAR_MELS = 15  # those below 1 kHz
_LOG_STEP = math.log(6.4) / 27  # above, where frequency grows by a factor with each mel


def log_mel(audio: jax.Array, *, sample_rate: int, window: int, hop: int, bins: int) -> jax.Array:
    """Returns the log-mel spectrogram [B, S / hop, bins] in decibels, at least -100; float32.

    Args:
      audio: float32 [B, S], usually in [-1, 1]; S is a multiple of the hop.
      sample_rate: in hertz; filters reach up to half of it.
      window: samples that a frame sees; hop or longer by an even number.
      hop: samples from a frame to the next.
      bins: mel filters.
    """
    power = jnp.square(jnp.abs(jnp.fft.rfft(_frames(audio, window, hop) * _hann(window))))
    # TF32, which GPUs would choose, leaves three digits of each power
    mel = jnp.matmul(power, filters(sample_rate, window, bins), precision=jax.lax.Precision.HIGHEST)
    return 10 * jnp.log10(jnp.maximum(mel, FLOOR))


def _frames(audio: jax.Array, window: int, hop: int) -> jax.Array:  # -> [B, S / hop, window]
    count = audio.shape[1] // hop
    overhang = (window - hop) // 2
    audio = jnp.pad(audio.astype(jnp.float32), ((0, 0), (overhang, overhang)), mode="reflect")
    # A frame is some hops side by side: slices, as a gather would be slow on accelerators.
    hops = -(-window // hop)
    audio = jnp.pad(audio, ((0, 0), (0, hops * hop - window)))
    parts = [audio[:, i * hop : (i + count) * hop].reshape(-1, count, hop) for i in range(hops)]
    return jnp.concatenate(parts, axis=-1)[..., :window]


def _hann(window: int) -> np.ndarray:  # [1, 1, window]
    angle = 2 * np.pi * np.arange(window) / window
    return (0.5 - 0.5 * np.cos(angle)).astype(np.float32)[None, None]


@functools.lru_cache
def filters(sample_rate: int, window: int, bins: int) -> np.ndarray:
    """Returns triangular filters [window / 2 + 1, bins], each of area 1 in hertz.

    Raises:
      ValueError: a filter lies between two frequencies of the window and would see nothing.
    """
    frequencies = np.arange(window // 2 + 1) * sample_rate / window
    edges = _hertz(np.linspace(0, _mels(sample_rate / 2), bins + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rise = (frequencies[:, None] - low) / (centre - low)
    fall = (high - frequencies[:, None]) / (high - centre)
    weights = np.maximum(0, np.minimum(rise, fall)) * (2 / (high - low))
    if not weights.any(axis=0).all():
        empty = int(np.argmin(weights.any(axis=0)))
        raise ValueError(
            f"mel filter {empty} of {bins} is empty: a window of {window} samples at "
            f"{sample_rate} Hz resolves frequencies to {sample_rate / window:.1f} Hz only; use "
            "fewer bins or a longer window"
        )
    return weights.astype(np.float32)


def _mels(hertz: float) -> float:
    if hertz < 1000:
        return hertz / _HERTZ_PER_MEL
    return _LINEAR_MELS + math.log(hertz / 1000) / _LOG_STEP


def _hertz(mels: np.ndarray) -> np.ndarray:
    above = 1000 * np.exp(_LOG_STEP * (mels - _LINEAR_MELS))
    return np.where(mels < _LINEAR_MELS, mels * _HERTZ_PER_MEL, above)

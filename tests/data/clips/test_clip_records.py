import numpy as np
import pytest

from data.clips import clip_records


@pytest.fixture(scope="module")
def codec():
    return clip_records.ClipCodec(clip_records.features(("dog", "cat", "rain")))


@pytest.mark.parametrize("frames", [0, 1, 3])
@pytest.mark.parametrize("samples", [0, 1, 48_000])
@pytest.mark.parametrize("labels", [[], [2], [0, 2]])
def test_a_clip_survives(codec, jpeg, frames, samples, labels):
    audio = np.random.default_rng(0).integers(-(2**15), 2**15, samples).astype(np.int16)
    pictures = [jpeg(i) for i in range(frames)]
    clip = clip_records.Clip("Ünï-_0", pictures, audio, np.array(labels, np.int64))
    found = codec.decode(codec.encode(clip))
    assert (found.id, list(found.frames)) == (clip.id, pictures)
    np.testing.assert_array_equal(found.audio, audio)
    np.testing.assert_array_equal(found.labels, labels)
    assert (found.audio.dtype, found.labels.dtype) == (np.int16, np.int64)


@pytest.fixture
def jpeg():
    import io

    from PIL import Image

    def encode(seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG")
        return file.getvalue()

    return encode

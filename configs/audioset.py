"""AudioSet: tags ten seconds of video with sound with 527 classes.

    python -m data.prepare audioset --csv=FILE --clips=DIR --out=DATA     # once
    python -m train --config=configs/audioset.py:mel --workdir=RUN --config.data.data_dir=DATA

    mel (default), raw                Perceiver IO on video with a mel spectrogram or raw audio
                                      samples (Perceiver IO, table 10): 12 layers
    mel-16, raw-16                    16 layers, as many as the Perceiver has
    io-perceiver-raw, -mel            the Perceivers of the same table: one cross-attend, 12 layers
    perceiver-raw, perceiver-mel      Perceiver on audio alone (Perceiver, table 3)
    perceiver-video                   video alone
    perceiver-raw-video, -mel-video   both
    perceiver-mel-video-tuned         both, the best setting: no SpecAugment, mel dropout 0.1
    embedded, embedded-audio, -video  small, on synthetic scenes: `python -m data.prepare scenes`

Options after a comma: `modern` (not from the papers: bfloat16 products, averaged weights and
micro-batches, for one GPU), `smoke` (two steps of a tiny model, on a few scenes drawn on the fly).
"""

from configs import common
from perceiver.kinds import released


def _perceiver_io(c):
    """Perceiver IO, table 10 and appendix; unstated settings are those of ImageNet (A.1)."""
    c.train.epochs = 100.0  # table 10
    c.data.batch_size = 512  # not stated; half of ImageNet's, as examples are larger
    c.optim.update(name="lamb", b1=0.9, b2=0.999, eps=1e-6)  # not stated; A.1
    c.optim.update(lr=2e-3, weight_decay=0.1, clip_norm=10.0)  # not stated; A.1
    c.optim.update(schedule="constant_cosine", constant_fraction=0.5)  # not stated; A.1
    _inputs(c)


def _perceiver(c):
    """Perceiver, section 4.2; the optimiser and rates, which it does not state, are from 4.1."""
    _perceiver_io(c)
    c.optim.update(lr=4e-3, clip_norm=0.0)  # not stated; 4.1, where no clipping is stated either
    decay_at = (84 / 120, 102 / 120, 114 / 120)  # not stated; 4.1, as parts of the run
    c.optim.update(schedule="step_decay", decay_at=decay_at, decay_factor=0.1)


def _tuned(c):
    """Perceiver, section 4.2: 44.2 instead of 43.2 mAP."""
    _perceiver(c)
    c.model.update(mel_time_mask=0, mel_bin_mask=0)  # 4.2: without SpecAugment
    c.model.audio_dropout = 0.1  # 4.2


def _inputs(c):
    """Augmentation and dropout of modalities: Perceiver, section 4.2."""
    c.data.augment = "inception"  # 4.2: resizing, flip, crop to 224
    c.data.crop_area = (0.08, 1.0)  # not stated; Inception's
    c.data.colour = 0.4  # 4.2 has colour augmentation; its strength is not stated
    # 4.2 samples sound and picture from one window: no data.time_jitter of one against the other.
    if c.model.audio == "mel":
        # 4.2 has SpecAugment; its policy is not stated: that paper's SM, for 80 bins too (15 bins,
        # and at most a fifth of the 60 frames).
        c.model.update(mel_time_mask=12, mel_bin_mask=15)
    if c.model.audio != "none" and c.model.video_shape:
        c.model.video_dropout = 0.3  # 4.2: of examples; it gives 3 to 4 points of mAP


def _scenes(c):
    """The whole recipe, small enough for minutes on two CPU cores."""
    c.data.update(source="clips:scenes", workers=0, batch_size=32, eval_batch_size=42)
    c.data.update(frames=16, image_size=32, audio_samples=30_720, eval_windows=8)
    # Mild, since objects must stay visible and keep their motion.
    c.data.update(augment="inception", crop_area=(0.7, 1.0), colour=0.2)
    c.train.update(epochs=0.0, steps=1200, log_every=50, eval_every=600, save_every=600)
    c.optim.update(name="adamw", lr=1e-3, weight_decay=0.1, clip_norm=1.0)
    c.optim.update(schedule="warmup_cosine", warmup_steps=50)


def _modern(c):
    """For one modern GPU; the papers' results do not use these settings."""
    c.model.operands = "bfloat16"  # of matrix products; sums, softmax, norms stay float32
    c.optim.ema_decay = 0.9999
    c.train.micro_batches = max(1, c.data.batch_size // 32)


_VIDEO = {"video_shape": (16, 32, 32, 3), "video_patch": (4, 4, 4), "video_bands": 4}
_NO_VIDEO = {"video_shape": ()}
_AUDIO = {
    "audio": "mel",
    "samples": 30_720,
    "mel_hop": 1_536,
    "mel_bins": 24,
    "mel_positions": 2,  # a small model learns faster when pitch and time are separate axes
    "audio_bands": 8,
}
_NO_AUDIO = {"audio": "none"}
_SMALL = {
    "kind": "clip_classifier",
    "classes": 0,
    "latents": 32,
    "latent_channels": 128,
    "layers": 4,
    "cross_heads": 4,
    "cross_qk_channels": 128,  # not as wide as the byte array, which is 223
    "cross_v_channels": 128,
    "self_heads": 4,
    "query_channels": 128,
}
_DEEP = {"layers": 16}
_PAPERS = released.MODELS

# variant -> (model, recipe)
_VARIANTS = {
    "mel": (_PAPERS["audioset-mel"], _perceiver_io),
    "raw": (_PAPERS["audioset-raw"], _perceiver_io),
    "mel-16": (_PAPERS["audioset-mel"] | _DEEP, _perceiver_io),
    "raw-16": (_PAPERS["audioset-raw"] | _DEEP, _perceiver_io),
    "io-perceiver-raw": (_PAPERS["audioset-perceiver-raw"], _perceiver_io),
    "io-perceiver-mel": (_PAPERS["audioset-perceiver-mel"], _perceiver_io),
    "perceiver-raw": (_PAPERS["perceiver-audioset-raw"], _perceiver),
    "perceiver-mel": (_PAPERS["perceiver-audioset-mel"], _perceiver),
    "perceiver-video": (_PAPERS["perceiver-audioset-video"], _perceiver),
    "perceiver-raw-video": (_PAPERS["perceiver-audioset-raw-video"], _perceiver),
    "perceiver-mel-video": (_PAPERS["perceiver-audioset-mel-video"], _perceiver),
    "perceiver-mel-video-tuned": (_PAPERS["perceiver-audioset-mel-video"], _tuned),
    "embedded": (_SMALL | _VIDEO | _AUDIO | {"video_dropout": 0.3}, _scenes),
    "embedded-audio": (_SMALL | _NO_VIDEO | _AUDIO, _scenes),
    "embedded-video": (_SMALL | _VIDEO | _NO_AUDIO, _scenes),
}
VARIANTS = tuple(_VARIANTS)


def get_config(arg: str = ""):
    variant, options = common.parse_arg(arg, VARIANTS, ("modern", "smoke"))
    model, recipe = _VARIANTS[variant]
    c = common.get_config("tagging", model)
    c.data.update(source="clips:audioset", workers=8)
    c.data.update(frames=32, image_size=224, audio_samples=61_440)  # Perceiver, 4.2: 1.28 s
    c.data.eval_windows = 16  # Perceiver, 4.2
    c.data.eval_batch_size = 16  # of 16 windows each: 1.2 GB of pixels
    c.data.update(video=bool(c.model.video_shape), audio=c.model.audio != "none")
    c.train.update(steps=0, log_every=100, eval_every=0, save_every=0)
    recipe(c)
    if "modern" in options:
        _modern(c)
    return _smoke(c) if "smoke" in options else c


def _smoke(c):
    """On a few synthetic scenes, for which nothing has to be prepared."""
    video = {"video_shape": (4, 16, 16, 3), "video_patch": (2, 8, 8), "video_bands": 4}
    mel = {"mel_bins": 8, "mel_window": 1_024, "mel_hop": 1_024}
    audio = {"samples": 6_144, "audio_bands": 4} | mel
    masks = {"mel_time_mask": min(c.model.mel_time_mask, 2)}
    masks["mel_bin_mask"] = min(c.model.mel_bin_mask, 2)
    sizes = (video if c.model.video_shape else {}) | audio | masks
    c.data.update(source="scenes", frames=4, image_size=16, audio_samples=6_144)
    c.data.eval_windows = 3
    return common.shrink(c, classes=0, **sizes)

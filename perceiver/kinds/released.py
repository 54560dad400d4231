"""Sizes of the papers' models, as plain dicts that `perceiver.build` takes; imports nothing.

Sources: Perceiver (2103.03206) sections 4.1 and 4.2, appendix C, table 7; Perceiver IO (2107.14795)
tables 7, 10 and 11, appendices A, F, H and I, and the configurations of the released checkpoints.
Parameter counts are held by tests.
"""

_IMAGENET = {
    "kind": "image_classifier",
    "image_shape": (224, 224, 3),
    "classes": 1000,
    "latents": 512,
    "latent_channels": 1024,
    "layers": 6,
    "cross_heads": 1,
    "self_heads": 8,
}

_IMAGENET_IO = {
    **_IMAGENET,
    "blocks": 8,
    "head": "query",
    "query_channels": 1024,
    "query_heads": 1,
    "query_residual": True,
}

_FOURIER = {"stem": "pixels", "positions": "fourier", "bands": 64}

_LEARNED = {
    "stem": "conv1x1",
    "stem_channels": 256,
    "positions": "learned",
    "position_channels": 256,
}

_CONV = {
    "stem": "conv",
    "stem_channels": 64,
    "positions": "fourier",
    "bands": 64,
    "max_resolution": (56, 56),
}

_B = {"blocks": 1, "layers": 16, "self_widening": 4}

_PERCEIVER_IMAGENET = {**_IMAGENET, **_FOURIER, "head": "mean"}

_MASKED_LM = {
    "kind": "masked_lm",
    "vocabulary": 262,
    "max_length": 2048,
    "embedding_channels": 768,
    "latents": 256,
    "cross_heads": 8,
    "cross_qk_channels": 256,
    "self_heads": 8,
    "self_qk_channels": 256,
    "query_heads": 8,
    "query_qk_channels": 256,
    "query_residual": False,
}

_BERT_BYTES = {
    "kind": "masked_lm_transformer",
    "vocabulary": 262,
    "max_length": 2048,
    "layers": 6,
    "channels": 512,
    "heads": 8,
    "widening": 4,
}

_RESNET_50 = {
    "kind": "image_resnet",
    "image_shape": (224, 224, 3),
    "classes": 1000,
    "blocks_per_stage": (3, 4, 6, 3),
    "stage_channels": (64, 128, 256, 512),
    "bottleneck": True,
    "stem": "imagenet",
}

_VIT_B = {
    "kind": "image_transformer",
    "classes": 1000,
    "layers": 12,
    "channels": 768,
    "heads": 12,
    "widening": 4,
}

# Perceiver, section 4.2, and Perceiver IO, table 10: clips of 1.28 s, 527 classes, 512 latents.
_AUDIOSET = {
    "kind": "clip_classifier",
    "classes": 527,
    "video_shape": (32, 224, 224, 3),
    "video_patch": (2, 8, 8),
    "video_bands": 16,
    "samples": 61440,
    "sample_rate": 48000,
    "samples_per_patch": 128,
    "audio_bands": 64,
    "mel_bins": 80,
    "mel_window": 2048,
    "mel_hop": 1024,
    "modality_channels": 4,
    "latents": 512,
    "cross_heads": 1,
    "self_heads": 8,
}

_AUDIOSET_IO = {
    **_AUDIOSET,
    "layers": 12,
    "head": "query",
    "query_channels": 1024,
    "query_heads": 1,
    "query_residual": True,
}

# Perceiver IO, table 10 and appendix C: one cross-attend and twelve layers, the mean as head.
_PERCEIVER_RERUN = {**_AUDIOSET, "latent_channels": 512, "layers": 12, "head": "mean"}

# Section 4.2 tells two cross-attends with eight self-attends each, nothing shared, and that this is
# a faster version of the ImageNet model. How wide its latents are is a reading: 512 channels, those
# of its re-run above, make 28.8M parameters with picture and raw sound, and 87 GFLOP; the ImageNet
# model's 1,024 make 109.0M and 177. No count is published.
_PERCEIVER_AUDIOSET = {
    **_AUDIOSET,
    "latent_channels": 512,
    "layers": 8,
    "encoders": (0, 1),
    "processors": (0, 1),
    "head": "mean",
}

MODELS = {
    # Perceiver IO, ImageNet: 48,440,627, 62,255,848 and 48,646,522 parameters.
    "imagenet-fourier": {**_IMAGENET_IO, **_FOURIER},
    "imagenet-learned": {**_IMAGENET_IO, **_LEARNED, "query_residual": False},
    "imagenet-conv": {**_IMAGENET_IO, **_CONV},
    # Perceiver IO "B", of the large-scale pre-training (appendix A.2): 16 layers with weights of
    # their own and wider MLPs. That are the parameters of table 7 (212M); its FLOPs (213B and 176B)
    # are those of twelve such layers (212.9 and 176.1), whose parameters would be 162M.
    # Appendix A.2 also projects RGB to 256 channels before positions are concatenated, which these
    # do not: with that, `imagenet-b-fourier` had 213.1M and 334.6 GFLOP in place of its 212.2M and
    # 268.7.
    "imagenet-b-fourier": {**_IMAGENET_IO, **_FOURIER, **_B},
    "imagenet-b-conv": {**_IMAGENET_IO, **_CONV, **_B},
    # Perceiver, ImageNet: 8 cross-attends of which 2-8 share weights (44.9M), one (42.1M), nothing
    # shared (326.2M). With 2 and 4, a processor repeats its block: always 48 self-attends.
    "perceiver-imagenet": {
        **_PERCEIVER_IMAGENET,
        "encoders": (0, 1, 1, 1, 1, 1, 1, 1),
        "processors": (0, 0, 0, 0, 0, 0, 0, 0),
    },
    "perceiver-imagenet-1": {**_PERCEIVER_IMAGENET, "blocks": 8},
    "perceiver-imagenet-2": {
        **_PERCEIVER_IMAGENET,
        "blocks": 4,
        "encoders": (0, 1),
        "processors": (0, 0),
    },
    "perceiver-imagenet-4": {
        **_PERCEIVER_IMAGENET,
        "blocks": 2,
        "encoders": (0, 1, 1, 1),
        "processors": (0, 0, 0, 0),
    },
    "perceiver-imagenet-unshared": {
        **_PERCEIVER_IMAGENET,
        "encoders": (0, 1, 2, 3, 4, 5, 6, 7),
        "processors": (0, 1, 2, 3, 4, 5, 6, 7),
    },
    # The Perceivers that Perceiver IO, table 7 compares itself with: inputs as above, one
    # cross-attend, the mean as head. "55.9M" fits these learned positions but for 0.05M (without
    # the projection of positions it were 55.89M), and "404B" does not: that fits 128 channels of
    # positions and of pixels (403.0), the 128 of Perceiver, section 4.1, with 48.6M parameters.
    # "42.1M" is the Fourier model's count; a convolutional stem has 0.2M more.
    "perceiver-imagenet-learned": {**_PERCEIVER_IMAGENET, **_LEARNED, "blocks": 8},
    "perceiver-imagenet-conv": {**_PERCEIVER_IMAGENET, **_CONV, "blocks": 8},
    # What the Perceiver is compared with (tables 1 and 2). ResNet-50 and ViT-B/16 as in their own
    # papers, and with Fourier features (FF) concatenated to every pixel: that the first layer is
    # then as much wider is this project's reading.
    "resnet-50": _RESNET_50,
    "resnet-50-fourier": {**_RESNET_50, "positions": "fourier", "bands": 64},
    "vit-b-16": {**_VIT_B, "image_shape": (224, 224, 3), "patch_size": 16, "positions": "learned"},
    "vit-b-16-fourier": {
        **_VIT_B,
        "image_shape": (224, 224, 3),
        "patch_size": 16,
        "positions": "fourier",
        "bands": 64,
    },
    # Every pixel of a 64x64 image is an element; the layers are those of the Perceiver's latent
    # Transformer (section 4.1), each with its own weights: whether they were shared is not stated.
    "transformer-64": {
        **_VIT_B,
        "layers": 48,
        "channels": 1024,
        "heads": 8,
        "widening": 1,
        "image_shape": (64, 64, 3),
        "patch_size": 1,
        "positions": "fourier",
        "bands": 64,
    },
    # Perceiver IO, bytes: 201,108,230 parameters, and the larger "++" of 425.6M.
    "masked-lm-bytes": {
        **_MASKED_LM,
        "latent_channels": 1280,
        "layers": 26,
        "cross_v_channels": 1280,
    },
    "masked-lm-bytes-plus": {
        **_MASKED_LM,
        "latent_channels": 1536,
        "layers": 40,
        "cross_v_channels": 1536,
    },
    # Perceiver IO, SentencePiece (table 1 and 11): 32,000 subwords in place of bytes, 512 of them.
    "masked-lm-sentencepiece": {
        **_MASKED_LM,
        "vocabulary": 32_000,
        "max_length": 512,
        "latent_channels": 1280,
        "layers": 26,
        "cross_v_channels": 1280,
    },
    # What that is compared with, "BERT Base (ours)": BERT's layers on the same subwords. Its 110M
    # parameters leave no room for the transform in BERT's head: with its 0.59M they were 111M.
    "bert-base": {
        "kind": "masked_lm_transformer",
        "vocabulary": 32_000,
        "max_length": 512,
        "layers": 12,
        "channels": 768,
        "heads": 12,
        "widening": 4,
        "activation": "gelu_erf",
        "residual": "post_norm",
        "norm_epsilon": 1e-12,
        "embedding_norm": True,
    },
    # The same on bytes at matched FLOPs: six layers of 512 channels (appendix F.3;
    # table 11 tells 768, with which neither its 20M parameters nor its 130 GFLOP agree).
    "bert-bytes": _BERT_BYTES,
    # The same with linear attention: a Performer with the paper's usual features (2009.14794,
    # appendix A: 256 of them, ReLU; appendix A.4 draws them once).
    "performer-bytes": {
        **_BERT_BYTES,
        "kernel": "favor_relu",
        "kernel_features": 256,
        "kernel_redraw": False,
    },
    # Perceiver IO, optical flow: 41,057,134 parameters.
    "optical-flow": {
        "kind": "optical_flow",
        "frame_shape": (368, 496, 3),
        "patch_size": 3,
        "patch_channels": 64,
        "bands": 64,
        "latents": 2048,
        "latent_channels": 512,
        "layers": 24,
        "cross_heads": 1,
        "self_heads": 16,
        "query_heads": 1,
        "query_residual": False,
        "output_scale": 0.01,
    },
    # Perceiver IO, Kinetics-700 with sound and labels: 19,858,855 parameters.
    "video-autoencoder": {
        "kind": "video_autoencoder",
        "video_shape": (16, 224, 224, 3),
        "samples": 30720,
        "classes": 700,
        "patch_size": 4,
        "samples_per_patch": 16,
        "video_bands": 32,
        "audio_bands": 192,
        "label_query_channels": 1024,
        "decoder_channels": 512,
        "latents": 784,
        "latent_channels": 512,
        "layers": 8,
        "cross_heads": 1,
        "self_heads": 8,
        "query_heads": 1,
        "query_residual": False,
    },
    # Perceiver, AudioSet (table 3): sound, picture, both.
    "perceiver-audioset-raw": {**_PERCEIVER_AUDIOSET, "video_shape": (), "audio": "raw"},
    "perceiver-audioset-mel": {**_PERCEIVER_AUDIOSET, "video_shape": (), "audio": "mel"},
    "perceiver-audioset-video": {**_PERCEIVER_AUDIOSET, "audio": "none"},
    "perceiver-audioset-raw-video": {**_PERCEIVER_AUDIOSET, "audio": "raw"},
    "perceiver-audioset-mel-video": {**_PERCEIVER_AUDIOSET, "audio": "mel"},
    # Perceiver IO, AudioSet with picture: 24.9M parameters of a published 25.0M, 86.6M of 88.2M.
    # Keys and values as wide as the latents, not as the byte array, would have the published
    # number to the last digit (24.97M, 88.19M), but cost 54.0 and 167.6 GFLOP where 52.9 and 129.5
    # are published, and these 52.7 and 129.3: the tables fit no one model.
    "audioset-raw": {**_AUDIOSET_IO, "audio": "raw", "latent_channels": 512},
    "audioset-mel": {**_AUDIOSET_IO, "audio": "mel", "latent_channels": 1024},
    # The Perceivers of the same table, "21.0M" both: the decoder alone differs (appendix C).
    "audioset-perceiver-raw": {**_PERCEIVER_RERUN, "audio": "raw"},
    "audioset-perceiver-mel": {**_PERCEIVER_RERUN, "audio": "mel"},
}

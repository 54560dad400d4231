"""What a model is used with when its weights do not say."""

import pytest

from perceiver.kinds import released, specs, usage
from perceiver.media import labels

DIGITS = {
    "kind": "image_classifier",
    "image_shape": (8, 8, 1),
    "classes": 3,
    "latents": 5,
    "latent_channels": 16,
    "layers": 1,
}


def test_class_names_are_complete_and_distinct():
    for names, size in ((labels.imagenet(), 1000), (labels.kinetics700(), 700)):
        assert len(names) == len(set(names)) == size
        assert all(name and name == name.strip() for name in names)
    assert list(labels.imagenet_synsets()) == sorted(labels.imagenet_synsets())
    # known places of ImageNet's numbering
    assert [labels.imagenet()[i] for i in (0, 207, 281, 999)] == [
        "tench",
        "golden retriever",
        "tabby",
        "toilet tissue",
    ]


def test_released_classifiers_are_used_with_imagenets_names_and_normalisation():
    found = usage.default(specs.parse(released.MODELS["imagenet-conv"]))
    assert found["labels"][251] == "dalmatian"
    assert found["image"]["crop_fraction"] == 0.875
    assert found["image"]["mean"] == [0.485, 0.456, 0.406]


def test_other_class_counts_get_numbers_or_the_names_given():
    spec = specs.parse(DIGITS)
    assert usage.default(spec)["labels"] == ["class 0", "class 1", "class 2"]
    assert usage.default(spec, ["a", "b", "c"])["labels"] == ["a", "b", "c"]
    assert len(usage.default(spec)["image"]["mean"]) == 1
    with pytest.raises(ValueError, match="2 labels for 3 classes"):
        usage.default(spec, ["a", "b"])

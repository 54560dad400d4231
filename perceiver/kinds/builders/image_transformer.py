"""The parts of a Vision Transformer."""

from perceiver.inputs.patches import PatchInputs
from perceiver.kinds import specs
from perceiver.kinds.builders import image_classifier
from perceiver.kinds.builders.parts import Parts, transformer
from perceiver.outputs.classes import MeanClassifier, TokenClassifier


def _parts(spec: specs.ImageTransformer) -> Parts:
    inputs = PatchInputs(
        patch_size=spec.patch_size,
        channels=spec.channels,
        positions=spec.positions,
        bands=spec.bands,
        max_resolution=spec.max_resolution or None,
        class_token=spec.class_token,
        permutation=spec.permutation,
        name="inputs",
    )
    classifier = TokenClassifier if spec.class_token else MeanClassifier
    head = classifier(classes=spec.classes, name="outputs")
    return Parts(
        preprocess=lambda x, *, is_training: inputs(x["image"]),
        body=transformer(spec, head),
        head=head,
        options=lambda x, byte_array: {},
    )


KIND = image_classifier.KIND._replace(parts=_parts)  # of the same inputs

"""The parts of a residual network."""

from perceiver.inputs.image import ImageInputs
from perceiver.kinds import specs
from perceiver.kinds.builders import image_classifier
from perceiver.kinds.builders.parts import Parts
from perceiver.model.baseline import Baseline
from perceiver.nn.resnet import ResNet
from perceiver.outputs.classes import MeanClassifier


def _parts(spec: specs.ImageResNet) -> Parts:
    inputs = ImageInputs(
        stem="pixels",
        stem_channels=0,
        positions=spec.positions,
        bands=spec.bands,
        max_resolution=spec.max_resolution or None,
        permutation=spec.permutation,
        name="inputs",
    )
    resnet = ResNet(
        blocks_per_stage=spec.blocks_per_stage,
        stage_channels=spec.stage_channels,
        bottleneck=spec.bottleneck,
        stem=spec.stem,
        name="resnet",
    )
    head = MeanClassifier(classes=spec.classes, name="outputs")
    return Parts(
        preprocess=lambda x, *, is_training: inputs(x["image"], is_training=is_training),
        body=Baseline(features=resnet, decode=head),
        head=head,
        options=lambda x, byte_array: {},
    )


KIND = image_classifier.KIND._replace(parts=_parts)  # of the same inputs

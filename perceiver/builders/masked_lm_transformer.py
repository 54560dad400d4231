"""The parts of a masked language model without latents."""

from perceiver import specs
from perceiver.builders import masked_lm
from perceiver.builders.parts import Parts, transformer
from perceiver.inputs.text import TextInputs
from perceiver.outputs.text import TiedTokens
from perceiver.positions import LearnedTable


def _parts(spec: specs.MaskedLMTransformer) -> Parts:
    embedding = LearnedTable(
        size=spec.vocabulary,
        channels=spec.channels,
        scale=spec.embedding_scale,
        name="embedding",
    )
    inputs = TextInputs(
        embedding=embedding,
        max_length=spec.max_length,
        position_scale=spec.position_scale,
        position_start=spec.position_start,
        name="inputs",
    )
    head = TiedTokens(embedding=embedding, compute=spec.compute, name="outputs")
    return Parts(
        preprocess=lambda x, *, is_training: inputs(x["tokens"], x["input_mask"]),
        body=transformer(spec, head),
        head=head,
        options=lambda x, byte_array: {},
    )


KIND = masked_lm.KIND._replace(parts=_parts)  # of the same inputs

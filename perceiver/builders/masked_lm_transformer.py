"""The parts of a masked language model without latents."""

from perceiver import specs
from perceiver.builders import masked_lm
from perceiver.builders.parts import Parts, transformer
from perceiver.outputs.text import TiedTokens


def _parts(spec: specs.MaskedLMTransformer) -> Parts:
    embedding, inputs = masked_lm.text_inputs(spec, spec.channels)
    head = TiedTokens(embedding=embedding, compute=spec.compute, name="outputs")
    return Parts(
        preprocess=lambda x, *, is_training: inputs(x["tokens"], x["input_mask"]),
        body=transformer(spec, head),
        head=head,
        options=lambda x, byte_array: {},
    )


KIND = masked_lm.KIND._replace(parts=_parts)  # of the same inputs

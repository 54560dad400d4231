"""The FLOPs that training an example needs: the numerator of MFU, model FLOP/s utilisation.

Counted are those which the model's own paths cannot do without, not those of the papers' dense
form: an ImageNet cross-attend needs 3 GFLOP where DeepMind's form does 43, and a share of the peak
made of work that nobody did would flatter. As usual (PaLM, appendix B), rematerialisation and the
optimiser are not counted: they are a means, not the end. Norms, softmax and tables of positions are
left out, so MFU is told slightly too low rather than too high.
"""

import perceiver
from perceiver.summary import byte_array_shapes, flops

# Operations of the dense form of a cross-attend that another path replaces.
_REPLACED = ("project keys", "project values", "logits", "weighted values")
_PASSES = 3  # forward once, backward twice: for the inputs and for the weights of each product


def flops_per_example(model: perceiver.Model) -> float:
    """Returns the FLOPs of a training step for each example of its batch; 0 where none are counted.

    Args:
      model: of `perceiver.build`; its plan tells which path each cross-attend takes. A decoder
        counts as the dense form, which is also what those of classes and tokens take.
    """
    try:
        rows = flops.forward(model.spec)
    except KeyError:  # a kind without a count
        return 0.0
    if not model.spec.has_latents:
        return float(_PASSES * flops.per_example(rows))
    kept = [row for row in rows if row.part != "cross-attends" or row.operation not in _REPLACED]
    return float(_PASSES * (flops.per_example(tuple(kept)) + _read_inputs(model)))


def _read_inputs(model: perceiver.Model) -> int:
    """FLOPs of what replaces `_REPLACED` in all stages, forward, for one example."""
    model = perceiver.build(model.spec)  # one that splits its inputs over devices needs no less
    spec, array = model.spec, byte_array_shapes(model)
    segments = {segment.name: segment for segment in array.segments}
    qk = spec.cross_qk_channels or array.channels
    v = spec.cross_v_channels or array.channels
    total = 0
    for stage, plan in model.explain(is_training=True).items():
        if not stage.startswith("stage"):
            continue
        for choice in plan.choices:
            if choice.path in ("plain", "streaming"):
                each = 2 * (qk + v) * (array.channels + spec.latents)
            else:
                segment = segments[choice.segment]
                is_grid = choice.path == "separable" and len(segment.dims) > 1
                channels = segment.content.shape[-1] if is_grid else array.channels
                each = 4 * spec.latents * spec.cross_heads * channels
            total += choice.elements * each
    return total

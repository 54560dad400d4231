"""Operations of a cross-attend, counted on paper: of each form, and the least that any needs.

A multiply and an add are two FLOPs; an exponential is none and the same number in every form.
XLA's own count is no help: it counts the body of a loop once. For one example with N queries of D
channels, M inputs of C channels of which F are content, one head of width C:

  latent      projections of the queries and the result, MLP: 4 N D C + 4 N D^2
  dense       keys and values 4 M C^2, logits and weighted values 4 N M C
  shared      absorbing both projections 4 N C^2, then 4 N M C on the inputs as they are
  separable   absorbing 4 N C^2, content 4 N M F, the tables 4 N P_a n_a per axis of n_a points,
              and `_WEIGHT` operations for each weight: no channel of a position is ever touched

Backward, a matrix product costs two of its size, and a form that has not stored the weights forms
logits (and keys and values) again.
"""

from benchmarks.shapes import Part, Shape
from perceiver import flops, specs
from perceiver.cross_attention import FEW_WEIGHTS

FORMS = ("dense", "plain", "streaming", "shared", "separable", "auto")

# Of one weight, forward: two table entries added, scaled, less the maximum, which is compared;
# scaled; added to the total, a row and a column.
_WEIGHT = 9
# Backward: six for the weight itself, two table entries of dz, scaled, less D, times the weight,
# scaled, added to a row and a column.
_WEIGHT_BACK = 14


def cross_attend(shape: Shape, form: str, work: str, batch: int = 1) -> float:
    """Returns the GFLOP of a cross-attend in one of `FORMS`, doing one of `blocks.WORKS`."""
    n, d, c = shape.queries, shape.width, shape.channels
    if form == "auto":
        form = _planned(shape)
    latent = 4 * n * d * c + 4 * n * d * d
    if form not in ("dense", "plain", "streaming"):
        latent += 4 * n * c * c
    total = latent * (1 if work == "forward" else 3)
    total += sum(_part(part, n, c, form, work) for part in shape.parts)
    return batch * total / 1e9


def least(shape: Shape, work: str, batch: int = 1) -> float:
    """Returns the GFLOP of the form that needs least."""
    forms = ("dense", "shared") + (("separable",) if shape.is_grid else ())
    return min(cross_attend(shape, form, work, batch) for form in forms)


def _planned(shape: Shape) -> str:
    if shape.queries * shape.size <= FEW_WEIGHTS:
        return "plain"
    return "separable" if shape.is_grid else "shared"


def _part(part: Part, n: int, c: int, form: str, work: str) -> int:
    m, f = part.size, part.content
    projections, products = 4 * m * c * c, 4 * n * m * c
    if form in ("dense", "plain", "streaming"):
        if work == "forward":
            return projections + products
        again = projections + products // 2 if form == "streaming" else 0
        return 3 * (projections + products) + again
    content = 4 * n * m * f if work == "gradient + content" else 0
    if form == "shared" or len(part.axes) < 2:  # a grid of one axis has nothing to separate
        return products if work == "forward" else products + products * 3 // 2 + content
    tables = sum(4 * n * points * channels for points, channels in part.axes)
    forward = 4 * n * m * f + tables + n * m * _WEIGHT
    if work == "forward":
        return forward
    return forward + 6 * n * m * f + 2 * tables + n * m * _WEIGHT_BACK + content


def decoder(shape: Shape, out: int, form: str, work: str) -> float:
    """Returns the GFLOP of a decoder whose O queries of E channels are the shape's one part.

    dense      queries projected, logits and weighted values over D, projected back
    separable  the projection of the queries absorbed into the keys, that of the result into the
               values: a weight costs the content of its query, and E channels of values

    Either way follow the MLP and a last linear layer of `out` channels.
    """
    (part,) = shape.parts
    o, e, n, d = part.size, part.channels, shape.queries, shape.width
    times = 1 if work == "forward" else 3
    head = 4 * o * e * e + 2 * o * e * out
    if form == "dense":
        return times * (4 * o * e * d + 4 * o * n * d + 4 * n * d * d + head) / 1e9
    absorb = 4 * n * d * d + 4 * n * d * e
    products = o * n * (2 * part.content + 2 * e)
    tables = sum(2 * n * points * channels for points, channels in part.axes)
    weights = o * n * (_WEIGHT if work == "forward" else _WEIGHT + _WEIGHT_BACK)
    again = 0 if work == "forward" else products + head  # formed again, chunk by chunk
    return (times * (absorb + products + tables + head) + weights + again) / 1e9


def model(spec: specs.Backbone, form: str, work: str = "forward", batch: int = 1) -> float:
    """Returns the GFLOP of a whole model: "dense", or with the "least" of each cross-attend.

    Only pixels with Fourier positions have less than the dense form; a masked language model's
    bytes are few and its heads narrow.
    """
    rows = flops.forward(spec)
    total = (1 if work == "forward" else 3) * flops.total(rows, batch) / 1e9
    if form == "dense" or not isinstance(spec, specs.ImageClassifier):
        return total
    height, width, content = spec.image_shape
    part = Part(dims=(height, width), content=content, bands=spec.bands)
    shape = Shape(parts=(part,), queries=spec.latents, width=spec.latent_channels)
    saved = cross_attend(shape, "dense", work, batch) - least(shape, work, batch)
    return total - len(spec.sharing.stages) * saved

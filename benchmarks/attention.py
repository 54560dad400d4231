"""Cross-attends at the papers' sizes: every path against the dense form of the papers.

    python -m benchmarks.attention [--parts PART ...] [--rounds 3] [--memory 8] [--smoke]

PART is a shape: imagenet, flow-decoder, ...
A forward is one cross-attend with its MLP. A gradient is by the parameters and the latents, as in
training on pixels; "gradient + content" by the inputs too, as where something trained makes them
(optical flow). What needs more temporary memory than --memory GiB is compiled, but not run. GFLOP
are counted on paper (`gflop`), since XLA counts the body of a loop once.

The dense form is written out here on the library's parameters: content and positions are
concatenated, keys and values of all inputs are formed, all attention weights are stored. Formulas:
Perceiver (2103.03206), section 3 and appendix C; Perceiver IO (2107.14795), appendix E. The table
of positions is made once, outside.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from perceiver.model.cross_attend import CrossAttend
from perceiver.model.decoder import Decoder
from perceiver.nn.byte_array import ByteArray, Segment
from perceiver.nn.compute import Compute
from perceiver.nn.positions import Dense, SeparableFourier

Params = Mapping[str, Mapping[str, jax.Array]]  # module path -> name -> array

# Shapes: Perceiver IO, tables 7, 11 and appendices A, F, H, and the released configurations.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A segment of a byte array: a grid with Fourier positions, a table, or neither."""

    dims: tuple[int, ...]
    content: int  # F
    bands: int = 0  # Fourier frequencies per axis; 0: none
    table: int = 0  # channels of arbitrary positions that the batch shares; 0: none
    constant: int = 0  # features that all elements share

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def axes(self) -> tuple[tuple[int, int], ...]:
        """(points, channels) of each table of Fourier positions."""
        return tuple((n, 1 + 2 * self.bands) for n in self.dims) if self.bands else ()

    @property
    def channels(self) -> int:
        return self.content + sum(c for _, c in self.axes) + self.table + self.constant


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A cross-attend of N queries to a byte array, one head, as wide inside as the byte array.

    As a decoder, the byte array holds the queries and the latents are what is read.
    """

    parts: tuple[Part, ...]
    queries: int  # N
    width: int  # D, of the queries

    @property
    def size(self) -> int:
        """M."""
        return sum(part.size for part in self.parts)

    @property
    def channels(self) -> int:
        """C."""
        return self.parts[0].channels

    def tiny(self) -> "Shape":
        """Returns the same structure with just enough queries and inputs for the same path."""
        small = ((1031,), (31, 37), (9, 11, 13))
        parts = tuple(
            dataclasses.replace(part, dims=small[len(part.dims) - 1] if part.size > 1 else (1,))
            for part in self.parts
        )
        return dataclasses.replace(self, parts=parts, queries=67)

    def arrays(self, batch: int) -> tuple[jax.Array, ByteArray]:
        """Draws (latents [B, N, D], inputs)."""
        rng = np.random.default_rng(0)

        def normal(*shape):
            return jnp.asarray(rng.standard_normal(shape, np.float32))

        segments = []
        for number, part in enumerate(self.parts):
            positions = None
            if part.bands:
                positions = SeparableFourier.of_grid(part.dims, bands=part.bands)
            elif part.table:
                positions = Dense(normal(part.size, part.table))
            constant = normal(part.constant) if part.constant else None
            content = normal(batch, *part.dims, part.content)
            name = f"part_{number}"
            segments.append(Segment(content, positions, constant=constant, name=name))
        return normal(batch, self.queries, self.width), ByteArray.of(*segments)


def pixels(side: int) -> Shape:
    """ImageNet's latents and channels (C = 261) on a square image of any side."""
    return Shape(parts=(Part(dims=(side, side), content=3, bands=64),), queries=512, width=1024)


IMAGENET = pixels(224)  # M = 50,176
# The same sizes with positions that have no structure: learned, or given by the user.
ARBITRARY = Shape(parts=(Part(dims=(50_176,), content=3, table=258),), queries=512, width=1024)
FLOW = Shape(  # M = 182,528, C = 322
    parts=(Part(dims=(368, 496), content=64, bands=64),), queries=2048, width=512
)
HALF_FLOW = dataclasses.replace(FLOW, parts=(dataclasses.replace(FLOW.parts[0], dims=(184, 248)),))
# 0.64 seconds of 224 x 224 video with 48 kHz sound and a label: M = 52,097, C = 704.
VIDEO = Shape(
    parts=(
        Part(dims=(1920,), content=16, bands=192, constant=303),
        Part(dims=(16, 56, 56), content=48, bands=32, constant=461),
        Part(dims=(1,), content=700, constant=4),
    ),
    queries=784,
    width=512,
)

# The dense form.


def layer_norm(params: Params, name: str, x: jax.Array) -> jax.Array:  # [..., C]
    """Normalises the last axis, then scales and shifts it."""
    mean = x.mean(axis=-1, keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    scale, offset = params[name]["scale"], params[name]["offset"]
    return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(offset, x.shape)


def linear(params: Params, name: str, x: jax.Array) -> jax.Array:  # [..., C] -> [..., C']
    """Returns x w + b."""
    y = x @ params[name]["w"]
    return y + jnp.broadcast_to(params[name]["b"], y.shape)


def attention(params: Params, name: str, x, inputs, *, heads, mask=None, query_mask=None):
    """Queries [B, N, D] attend to inputs [B, M, C], masks (True = real) -> [B, N, D]."""

    def project(source, part):
        y = linear(params, f"{name}/{part}", source)
        return y.reshape(*y.shape[:2], heads, -1)

    q, k, v = project(x, "query"), project(inputs, "key"), project(inputs, "value")
    logits = jnp.einsum("bnhc,bmhc->bhnm", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask[:, None, None], logits, -1e30)
    y = jnp.einsum("bhnm,bmhv->bnhv", jax.nn.softmax(logits, axis=-1), v)
    if query_mask is not None:
        y = jnp.where(query_mask[:, :, None, None], y, 0.0)
    return linear(params, f"{name}/out", y.reshape(*y.shape[:2], -1))


def feed_forward(params: Params, name: str, x) -> jax.Array:  # [B, N, D]
    """The second half of every block: norm, linear, GELU in its tanh form, linear."""
    hidden = linear(params, f"{name}/mlp/hidden", layer_norm(params, f"{name}/norm", x))
    return x + linear(params, f"{name}/mlp/out", jax.nn.gelu(hidden, approximate=True))


def cross_attend(params: Params, name: str, x, inputs, *, residual=True, **how) -> jax.Array:
    """Queries [B, N, D] read inputs [B, M, C] -> [B, N, D]; `how`: heads and masks."""
    at = f"{name}/attend"
    own, theirs = (
        layer_norm(params, f"{at}/norm", x),
        layer_norm(params, f"{at}/norm_inputs", inputs),
    )
    y = attention(params, f"{at}/attention", own, theirs, **how)
    return feed_forward(params, f"{name}/feed_forward", x + y if residual else y)


def self_attend(params: Params, name: str, x, *, heads) -> jax.Array:  # [B, N, D]
    """A layer of the latent Transformer."""
    y = layer_norm(params, f"{name}/attend/norm", x)
    x = x + attention(params, f"{name}/attend/attention", y, y, heads=heads)
    return feed_forward(params, f"{name}/feed_forward", x)


def decode(params: Params, name: str, queries, latents, **how) -> jax.Array:
    """Queries [B, O, E] read latents [B, N, D]; a last linear layer where there is one."""
    x = cross_attend(params, f"{name}/cross_attend", queries, latents, **how)
    return linear(params, f"{name}/out", x) if f"{name}/out" in params else x


# Blocks: an encoder's latents read a byte array; a decoder's queries are one, without residual.

WORKS = FORWARD, GRADIENT, WITH_CONTENT = ("forward", "gradient", "gradient + content")
OUT_CHANNELS = 2  # of a decoder's last layer: flow to the right and down


def library(kind: str, form: str = "auto") -> hk.Transformed:
    """Returns the library's "encoder" or "decoder": (latents, byte array) -> outputs.

    Args:
      kind: "encoder" or "decoder".
      form: a path, or a path and what the operands of its products are: "shared bfloat16".
    """
    path, _, operands = form.partition(" ")
    compute = Compute(path=path, operands=operands or "float32")

    def encoder(latents, byte_array):
        return CrossAttend(heads=1, compute=compute, name="cross_attend")(latents, byte_array)

    def decoder(latents, queries):
        how = {"query_residual": False, "out_channels": OUT_CHANNELS, "compute": compute}
        return Decoder(heads=1, name="decoder", **how)(queries, latents)

    return hk.without_apply_rng(hk.transform({"encoder": encoder, "decoder": decoder}[kind]))


def block(kind: str, form: str) -> Callable[[Params, jax.Array, ByteArray], jax.Array]:
    """Returns f(params, latents, byte array) in a form: "dense" or one of `library`'s."""
    if form != "dense":
        return library(kind, form).apply
    if kind == "encoder":
        return lambda p, x, inputs: cross_attend(p, "cross_attend", x, inputs.dense(), heads=1)
    return lambda p, x, queries: decode(p, "decoder", queries.dense(), x, heads=1, residual=False)


def working(run: Callable, work: str) -> Callable[..., Any]:
    """Returns f(params, latents, byte_array, cotangent) that does one of `WORKS` with a block.

    A gradient is that of <outputs, cotangent>, and comes with the outputs.
    """
    if work == FORWARD:
        return lambda params, latents, byte_array, cotangent: run(params, latents, byte_array)

    def loss(wanted, byte_array, cotangent):
        params, latents, *content = wanted
        if content:
            pairs = zip(byte_array.segments, *content, strict=True)
            byte_array = ByteArray(tuple(dataclasses.replace(s, content=x) for s, x in pairs))
        outputs = run(params, latents, byte_array)
        return jnp.vdot(outputs, cotangent), outputs

    def gradient(params, latents, byte_array, cotangent):
        content = tuple(segment.content for segment in byte_array.segments)
        wanted = (params, latents, content) if work == WITH_CONTENT else (params, latents)
        (_, outputs), gradients = jax.value_and_grad(loss, has_aux=True)(
            wanted, byte_array, cotangent
        )
        return outputs, gradients

    return gradient


def arguments(kind: str, shape: Shape, batch: int) -> tuple:
    """Draws what the functions of `working` take."""
    latents, inputs = shape.arrays(batch)
    params = jax.eval_shape(library(kind).init, jax.random.key(0), latents, inputs)
    outputs = latents.shape if kind == "encoder" else (batch, shape.size, OUT_CHANNELS)
    cotangent = np.random.default_rng(3).standard_normal(outputs, np.float32)
    return measure.draw_params(params), latents, inputs, jnp.asarray(cotangent)


def gflop(shape: Shape, form: str, work: str, batch: int = 1) -> float:
    """Returns the GFLOP of an encoder's cross-attend, counted on paper.

    A multiply and an add are two; an exponential is none, the same number in every form. For N
    queries of D channels, M inputs of C channels of which F are content, one head of width C:

      latent      projections of the queries and the result, MLP: 4 N D C + 4 N D^2
      dense       keys and values 4 M C^2, logits and weighted values 4 N M C
      shared      absorbing both projections 4 N C^2, then 4 N M C on the inputs as they are
      separable   absorbing 4 N C^2, content 4 N M F, the tables 4 N P_a n_a for each axis of n_a
                  points, and 9 for each weight (backward 14 more): no channel of a position is
                  ever read

    Backward, a product costs two of its size, and a form that has not stored the weights forms
    logits (and keys and values) again.
    """
    n, d, c = shape.queries, shape.width, shape.channels
    is_dense = form in ("dense", "plain", "streaming")
    latent = 4 * n * d * (c + d) + (0 if is_dense else 4 * n * c * c)
    total = latent * (1 if work == FORWARD else 3)
    for part in shape.parts:
        m, f = part.size, part.content
        products, projections = 4 * n * m * c, 4 * m * c * c
        content = 4 * n * m * f if work == WITH_CONTENT else 0
        if is_dense:
            again = projections + products // 2 if form == "streaming" else 0
            total += projections + products
            total += 0 if work == FORWARD else 2 * (projections + products) + again
        elif form == "shared" or len(part.axes) < 2:  # one axis has nothing to separate
            total += products + (0 if work == FORWARD else products * 3 // 2 + content)
        else:
            tables = sum(4 * n * points * channels for points, channels in part.axes)
            total += 4 * n * m * f + tables + 9 * n * m
            total += 0 if work == FORWARD else 6 * n * m * f + 2 * tables + 14 * n * m + content
    return batch * total / 1e9


class Case(NamedTuple):
    """A block of some shape, and for each work the forms to compare."""

    kind: str
    shape: Shape
    batch: int
    works: Mapping[str, tuple[str, ...]]


_TWO, _BFLOAT16 = ("dense", "separable"), ("shared bfloat16", "separable bfloat16")
_ALL = ("dense", "plain", "streaming", "shared", "separable", *_BFLOAT16)
_CONTENT = {WITH_CONTENT: ("dense", "shared", "separable")}
_BOTH = WORKS[:2]
_ARBITRARY = dict.fromkeys(_BOTH, ("dense", "shared", "shared bfloat16"))
CASES = {
    "flow-decoder-half": Case("decoder", HALF_FLOW, 1, {WITH_CONTENT: _TWO}),
    "imagenet": Case("encoder", IMAGENET, 2, dict.fromkeys(_BOTH, _ALL) | _CONTENT),
    "imagenet-4": Case("encoder", IMAGENET, 4, dict.fromkeys(_BOTH, _TWO)),
    "arbitrary": Case("encoder", ARBITRARY, 2, _ARBITRARY),
    "flow-encoder": Case("encoder", FLOW, 1, dict.fromkeys(WORKS, _TWO)),
    "flow-decoder": Case("decoder", FLOW, 1, dict.fromkeys(WORKS, _TWO)),
    "video": Case("encoder", VIDEO, 1, dict.fromkeys(_BOTH, ("dense", "auto"))),
}


def rows(name: str, case: Case, rounds: int, memory_gib: float) -> list[measure.Row]:
    """Returns a row for each work and form of a case."""
    given, found = arguments(case.kind, case.shape, case.batch), []
    for work, forms in case.works.items():
        contenders = {f: (working(block(case.kind, f), work), given) for f in forms}
        compared = measure.compare(contenders, rounds=rounds, memory_gib=memory_gib)
        for form, row in compared.items():
            if case.kind == "encoder" and form != "auto":
                row["GFLOP"] = gflop(case.shape, form.split()[0], work, case.batch)
            found.append({"case": f"{name}, batch {case.batch}", "work": work, "form": form} | row)
    return found


def main() -> None:
    """Prints a table for each case."""
    parser = measure.parser(__doc__, parts=CASES)
    parser.add_argument("--memory", type=float, default=8, help="GiB that a program may take")
    options = parser.parse_args()
    measure.start(options)
    for name in options.parts:
        case = CASES[name]
        if options.smoke:
            case = case._replace(shape=case.shape.tiny())
        measure.show(rows(name, case, options.rounds, options.memory))


if __name__ == "__main__":
    main()

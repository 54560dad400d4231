"""Cross-attends at the papers' sizes: every path against the dense form.

    python -m benchmarks.attention [NAME ...] [--json FILE] [--smoke] [--rounds 3] [--memory 8]

NAME: imagenet, arbitrary, flow-encoder, flow-decoder, video, million; all of them without any. A
forward is one cross-attend with its MLP. A gradient is by the parameters and the latents, as in
training on pixels; "gradient + content" by the inputs too, as where something trained makes them
(flow). What needs more temporary memory than `--memory`
GiB is weighed, not run.
"""

import argparse
import dataclasses

import jax.numpy as jnp
import numpy as np

from benchmarks import blocks, floor, shapes, table
from benchmarks.forms import DENSE, Form, compare
from benchmarks.shapes import Shape

FORWARD, GRADIENT, WITH_CONTENT = blocks.WORKS
AUTO, SHARED, SEPARABLE = Form("auto"), Form("shared"), Form("separable")
BFLOAT16 = tuple(Form(form.name, "bfloat16") for form in (SHARED, SEPARABLE))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A block of some shape, and for each work the forms to compare."""

    text: str
    shape: Shape
    works: dict[str, tuple[Form, ...]]
    batch: int = 1
    kind: str = "encoder"
    weigh_only: bool = False

    def gflop(self, form: str, work: str) -> float:
        """Returns the operations of a form on paper; of "least", the floor."""
        if self.kind == "decoder":
            form = "dense" if form == "dense" else "separable"
            return self.batch * floor.decoder(self.shape, blocks.OUT_CHANNELS, form, work)
        if form == "least":
            return floor.least(self.shape, work, self.batch)
        return floor.cross_attend(self.shape, form, work, self.batch)


_HALF_FLOW = Shape(
    parts=(dataclasses.replace(shapes.FLOW.parts[0], dims=(184, 248)),), queries=2048, width=512
)
_ALL = (DENSE, Form("plain"), Form("streaming"), SHARED, SEPARABLE)
_TWO = (DENSE, SEPARABLE)

CASES = {
    "imagenet": (
        Case(
            text="ImageNet, batch 2",
            shape=shapes.IMAGENET,
            batch=2,
            works={
                FORWARD: (*_ALL, *BFLOAT16),
                GRADIENT: (*_ALL, *BFLOAT16),
                WITH_CONTENT: (DENSE, SHARED, SEPARABLE),
            },
        ),
        Case(
            text="ImageNet, batch 4",
            shape=shapes.IMAGENET,
            batch=4,
            works=dict.fromkeys((FORWARD, GRADIENT), _TWO),
        ),
    ),
    "arbitrary": (
        Case(
            text="arbitrary positions, batch 2",
            shape=shapes.ARBITRARY,
            batch=2,
            works=dict.fromkeys((FORWARD, GRADIENT), (DENSE, SHARED, BFLOAT16[0])),
        ),
    ),
    "flow-encoder": (
        Case(
            text="flow encoder",
            shape=shapes.FLOW,
            works=dict.fromkeys(blocks.WORKS, _TWO),
        ),
    ),
    "flow-decoder": (
        Case(
            text="flow decoder",
            shape=shapes.FLOW,
            works={FORWARD: _TWO},
            kind="decoder",
        ),
        Case(
            text="flow decoder",
            shape=shapes.FLOW,
            works=dict.fromkeys((GRADIENT, WITH_CONTENT), _TWO),
            kind="decoder",
            weigh_only=True,
        ),
        Case(
            text="flow decoder, half resolution",
            shape=_HALF_FLOW,
            works={WITH_CONTENT: _TWO},
            kind="decoder",
        ),
    ),
    "video": (
        Case(
            text="audio, video and label",
            shape=shapes.VIDEO,
            works=dict.fromkeys((FORWARD, GRADIENT), (DENSE, AUTO)),
        ),
    ),
    "million": (
        Case(
            text="1,000,000 inputs",
            shape=shapes.pixels(1000),
            works=dict.fromkeys((FORWARD, GRADIENT), (SEPARABLE,)),
        ),
    ),
}


def measure_case(case: Case, options: argparse.Namespace) -> list[table.Row]:
    """Draws the arrays of a case and measures all its works."""
    latents, byte_array = case.shape.latents(case.batch), case.shape.byte_array(case.batch)
    params = blocks.draw_params(case.kind, latents, byte_array)
    outputs = latents.shape
    if case.kind == "decoder":
        outputs = (case.batch, case.shape.size, blocks.OUT_CHANNELS)
    cotangent = jnp.asarray(np.random.default_rng(3).standard_normal(outputs, np.float32))
    arguments, rows = (params, latents, byte_array, cotangent), []
    for work, forms in case.works.items():
        rows += compare(
            {f: (blocks.working(blocks.make(case.kind, f), work), arguments) for f in forms},
            case=case.text,
            work=work,
            gflop=lambda form, work=work: case.gflop(form, work),
            options=options,
            weigh_only=case.weigh_only,
        )
    return rows


def main() -> None:
    """Prints a block of rows per case."""
    parser = table.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--memory", type=float, default=8, help="GiB that a program may take")
    options = parser.parse_args()
    report = table.Report(options)
    for name in table.chosen(CASES, options.names):
        for case in CASES[name]:
            if options.smoke:
                case = dataclasses.replace(case, shape=case.shape.tiny())
            report.add(*measure_case(case, options))
    report.write("attention")


if __name__ == "__main__":
    main()

"""What the project set out to reach: one line for each figure, and where its measurement is found.

`benchmarks.report` fills the figures in. Remarks are written here, by hand; figures never are.
"""

import dataclasses
from typing import Any

from perceiver import specs

FORWARD, GRADIENT, WITH_CONTENT = "forward", "gradient", "gradient + content"
STEP = "training step"
PEERS = {"training_step": "Hugging Face", "input_pipeline": "tf.data"}  # else dense
DEFAULT = f"remat {specs.Backbone.remat}"
SMALLEST = "remat layer"

# field of `table.Row` -> what it is, its unit, whether more is better
FIELDS = {
    "wall_ratio": ("wall time", "x", True),
    "cpu_ratio": ("CPU time", "x", True),  # hardly moves when others use the machine
    "temp_ratio": ("temporary memory", "x", True),
    "resident_ratio": ("peak memory of the process", "x", True),
    "temp_mib": ("temporary memory", " MiB", False),
    "resident_mib": ("peak memory of the process", " MiB", False),
    "compile_s": ("trace and compile", " s", False),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """The goal of one field of one row, which the labels name."""

    benchmark: str
    case: str
    work: str
    form: str
    field: str  # of FIELDS
    goal: float
    dtype: str = "float32"
    remark: str = ""

    @property
    def item(self) -> str:
        """What is measured, in words."""
        dtype = "" if self.dtype == "float32" else f", {self.dtype} operands"
        peer = PEERS.get(self.benchmark, "dense")
        ratio = f" against {peer}" if FIELDS[self.field][1] == "x" else ""
        return f"{self.case}, {self.work} ({self.form}{dtype}): {FIELDS[self.field][0]}{ratio}"

    @property
    def text(self) -> str:
        """The goal, in words."""
        return f"{'≥' if FIELDS[self.field][2] else '≤'} {self.goal:,g}{FIELDS[self.field][1]}"

    def finds(self, benchmark: str, row: dict[str, Any]) -> bool:
        """Whether a row has the figure."""
        labels = ("case", "work", "form", "dtype")
        same = all(row[name] == getattr(self, name) for name in labels)
        return benchmark == self.benchmark and same and self.field in row

    def is_met(self, value: float) -> bool:
        """Whether a figure reaches the goal."""
        return value >= self.goal if FIELDS[self.field][2] else value <= self.goal


def show(field: str, value: float) -> str:
    """Returns a figure with its unit."""
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number}{FIELDS[field][1]}"


_ENCODER = ("attention", "flow encoder")
_DECODER = ("attention", "flow decoder")
_HALF = ("attention", "flow decoder, half resolution")
_ANY = ("attention", "arbitrary positions, batch 2")
_MILLION = ("attention", "1,000,000 inputs")
_ALONE = ("scaling", "pixels, own process")
_IMAGENET = ("models", "imagenet-fourier, batch 1")
_TRAINING = ("models", "imagenet-fourier, batch 2")
_CLASSICAL = ("auto", "cpu_ratio", 1.6)
_CLASSICAL_ALONE = ("models", "perceiver-imagenet, batch 2, own process")
_FLOW_SHAPE = ("flow_shape", "flow-shaped model, own process")

TARGETS = (
    *(
        Target("attention", f"ImageNet, batch {batch}", work, "separable", field, goal)
        for batch in (2, 4)
        for work, field, goal in (
            (FORWARD, "cpu_ratio", 8),
            (GRADIENT, "cpu_ratio", 12),
            (FORWARD, "temp_ratio", 40),
            (GRADIENT, "temp_ratio", 20),
        )
    ),
    Target(*_ANY, GRADIENT, "shared", "cpu_ratio", 2.5),
    Target(*_ANY, GRADIENT, "shared", "temp_ratio", 20),
    Target(*_MILLION, GRADIENT, "separable", "temp_mib", 100),
    Target(*_ALONE, FORWARD, "auto", "resident_mib", 1024),
    Target(*_ALONE, GRADIENT, "auto", "resident_mib", 1024),
    Target(*_ENCODER, FORWARD, "separable", "cpu_ratio", 5),
    Target(*_ENCODER, GRADIENT, "separable", "cpu_ratio", 3),
    Target(*_DECODER, FORWARD, "separable", "cpu_ratio", 2.3),
    Target(*_DECODER, FORWARD, "separable", "temp_ratio", 100),
    Target(*_DECODER, GRADIENT, "separable", "temp_ratio", 50),
    Target(*_HALF, WITH_CONTENT, "separable", "cpu_ratio", 2),
    *(
        Target("models", f"perceiver-imagenet, {n} of 8 stages, batch 1", GRADIENT, *_CLASSICAL)
        for n in (2, 8)
    ),
    Target(*_CLASSICAL_ALONE, STEP, SMALLEST, "resident_mib", 4096),
    Target(*_FLOW_SHAPE, FORWARD, "auto", "resident_mib", 3072),
    Target(*_IMAGENET, FORWARD, "auto", "cpu_ratio", 1.1),
    Target(*_IMAGENET, FORWARD, "auto", "cpu_ratio", 1.7, dtype="bfloat16"),
    Target(*_TRAINING, STEP, DEFAULT, "temp_ratio", 3),
    Target(*_TRAINING, STEP, SMALLEST, "temp_ratio", 6),
    Target(*_TRAINING, STEP, DEFAULT, "compile_s", 15),
    *(
        Target("training_step", f"{name}, batch 1", STEP, f"ours, {DEFAULT}", field, goal)
        for name in ("imagenet-fourier", "masked-lm-bytes")
        for field, goal in (("wall_ratio", 1), ("cpu_ratio", 1))
    ),
    *(
        Target(
            "training_step",
            f"{name}, batch 1",
            STEP,
            f"ours, {DEFAULT}",
            "resident_ratio",
            2,
            remark=remark,
        )
        for name, remark in (
            ("imagenet-fourier", "`--remat layer` keeps less, for about a tenth more time"),
            ("masked-lm-bytes", "parameters and two moments alone are 2,301 MiB on either side"),
        )
    ),
    *(
        Target("input_pipeline", f"500 x 375, {cores}", "512 images", "ours", "cpu_ratio", 1)
        for cores in ("1 core", "2 cores")
    ),
)

"""What the specs of all kinds share: plain values, checked when they are made."""

import dataclasses
import math
from typing import Any, ClassVar

from perceiver import attention

DTYPES = ("float32", "bfloat16")
# Bounds of what a file may ask for, far beyond any model, before anything of that size is made.
_LARGEST = 2**24
_MOST = {"layers": 2**14, "blocks": 2**12, "mel_bins": 2**12, "mel_window": 2**18}
_MOST |= {"permutation": 2**33}  # a seed, whose own bound is told where it is read
_MOST_PLACES = 2**10  # of a tuple
_MOST_ELEMENTS = 2**30  # of a shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What a model is."""

    kind: ClassVar[str]

    dtype: str = "float32"  # compute dtype; parameters, softmax, norms stay float32

    def __post_init__(self):
        for field in dataclasses.fields(self):  # JSON and ml_collections give lists
            if isinstance(getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
            self._check_type(field)
            self._check_size(field.name)
        self._choice("dtype", DTYPES)

    @property
    def has_latents(self) -> bool:
        """Whether the inputs are read by the cross-attends of latents."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Returns the flat dict that `parse` reads."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def _require(self, condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise ValueError(f"{self.kind}: {name}={getattr(self, name)!r} {rule}")

    def _positive(self, *names: str) -> None:
        for name in names:
            self._require(getattr(self, name) > 0, name, "must be positive")

    def _shape(self, name: str, axes: str) -> None:
        """Checks a tuple of positive sizes, one for each word of `axes`."""
        shape = getattr(self, name)
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)
        self._require(whole and len(shape) == len(axes.split(", ")), name, f"must be ({axes})")

    def _rate(self, *names: str) -> None:
        for name in names:
            self._require(0 <= getattr(self, name) < 1, name, "must lie in [0, 1)")

    def _kernel(self) -> None:
        """Checks the attention kernel of those specs that have one, and what it can do."""
        self._choice("kernel", ("auto", *attention.KERNELS))
        self._positive("kernel_features")
        drops = self.attention_dropout_rate > 0 and self.kernel in attention.APPROXIMATE
        rule = f"must be 0 with kernel={self.kernel!r}, which never forms the weights"
        self._require(not drops, "attention_dropout_rate", rule)

    def _check_type(self, field: dataclasses.Field) -> None:
        value = getattr(self, field.name)
        kinds = {int: int, float: int | float, str: str, bool: bool}
        kind = kinds.get(field.type, tuple)
        fits = isinstance(value, kind) and (field.type is bool or not isinstance(value, bool))
        self._require(fits, field.name, f"must be of type {getattr(kind, '__name__', 'float')}")
        if field.type is int:
            self._require(value >= 0, field.name, "must not be negative")

    def _check_size(self, name: str) -> None:
        value = getattr(self, name)
        parts = value if isinstance(value, tuple) else (value,)
        numbers = [x for x in parts if isinstance(x, int)]
        most = _MOST.get(name, _LARGEST)
        self._require(all(abs(x) <= most for x in numbers), name, f"must be at most {most:,}")
        self._require(len(parts) <= _MOST_PLACES, name, f"has more than {_MOST_PLACES:,} places")
        if name.endswith("_shape"):
            fits = math.prod(numbers) <= _MOST_ELEMENTS
            self._require(fits, name, f"has more than {_MOST_ELEMENTS:,} elements")

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        self._require(
            getattr(self, name) in choices, name, f"is unknown; choose one of {', '.join(choices)}"
        )
